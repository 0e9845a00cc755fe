"""From a reference to a checkpoint: what is accepted, which source decides, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import effkernels
from effkernels.checkpoints import (
    Semantics,
    export_state,
    resolve,
    save_checkpoint,
    source_semantics,
)

SAME = Semantics(1e-3, 0.01, "same")
EARLY = Semantics(1e-5, 0.1, "symmetric")


class TestKinds:
    def test_state_dict(self, b0_state):
        found = resolve(b0_state, variant="efficientnet_b0")
        assert found.format == "effkernels"
        assert found.origin == "the state dict"
        assert list(found.state_dict) == list(b0_state)

    def test_keys_stay_as_in_the_file(self, b0_state, tmp_path: Path):
        exported = export_state(b0_state, "torchvision")
        torch.save({"model": {f"module.{k}": v for k, v in exported.items()}}, tmp_path / "a.pth")
        found = resolve(tmp_path / "a.pth", variant="efficientnet_b0")
        assert list(found.state_dict) == list(exported)
        assert (found.format, found.origin) == ("torchvision", str(tmp_path / "a.pth"))

    def test_averaged_weights(self, b0_state):
        averaged = {key: value + 1 for key, value in b0_state.items()}
        both = {"state_dict": b0_state, "state_dict_ema": averaged}
        found = resolve(both, variant="efficientnet_b0", use_ema=True)
        assert torch.equal(found.state_dict["classifier.bias"], averaged["classifier.bias"])

    @pytest.mark.parametrize("weights", [3, None, [1], b"x"])
    def test_other_types(self, weights):
        with pytest.raises(TypeError, match="weights must be a path, a state dict, 'hf-hub"):
            resolve(weights, variant="efficientnet_b0")

    def test_misspelt_names(self):
        with pytest.raises(
            ValueError, match="weights='imagnet' is neither a file nor a known name"
        ):
            resolve("imagnet", variant="efficientnet_b0")

    def test_missing_file(self):
        with pytest.raises(ValueError, match=r"no such checkpoint file: nowhere\.pth"):
            resolve("nowhere.pth", variant="efficientnet_b0")

    def test_unrecognised_keys_name_the_file(self, tmp_path: Path):
        torch.save({"weight": torch.zeros(1)}, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=r"a\.pth: unrecognised checkpoint format"):
            resolve(tmp_path / "a.pth", variant="efficientnet_b0")


class TestSettling:
    """Which of source, record, configuration and format decides."""

    def test_source(self, b0_state):
        exported = export_state(b0_state, "timm")
        for source in ("timm/efficientnet_b0", "timm/tf_efficientnet_b0.ap_in1k"):
            found = resolve(exported, variant="efficientnet_b0", source=source)
            assert found.semantics == source_semantics(source)

    def test_timm_without_a_source(self, b0_state, tmp_path: Path):
        torch.save(export_state(b0_state, "timm"), tmp_path / "a.pth")
        with pytest.raises(ValueError, match=r"a\.pth: the keys are timm's") as caught:
            resolve(tmp_path / "a.pth", variant="efficientnet_b0")
        assert "source='timm/tf_efficientnet_b0'" in str(caught.value)

    @pytest.mark.parametrize("fmt", ["torchvision", "lukemelas", "effkernels"])
    def test_format(self, b0_state, fmt):
        found = resolve(export_state(b0_state, fmt), variant="efficientnet_b0")
        expected = source_semantics(f"{fmt}/efficientnet_b0")
        assert found.semantics == expected

    def test_record_before_format(self, b0_state, tmp_path: Path):
        path = tmp_path / "a.pth"
        save_checkpoint(
            b0_state,
            path,
            format="torchvision",
            variant="efficientnet_b0",
            semantics=SAME,
            allow_semantics_change=True,
        )
        assert resolve(path, variant="efficientnet_b0").semantics == SAME

    def test_source_that_contradicts_the_record(self, b0_state, tmp_path: Path):
        path = tmp_path / "a.pth"
        save_checkpoint(b0_state, path, variant="efficientnet_b0", semantics=SAME)
        with pytest.raises(ValueError, match="drop source to use what the file states") as caught:
            resolve(path, variant="efficientnet_b0", source="timm/efficientnet_b0")
        message = str(caught.value)
        assert "eps 0.001, same padding" in message
        assert "eps 1e-05, symmetric padding" in message

    def test_source_that_agrees_with_the_record(self, b0_state, tmp_path: Path, caplog):
        path = tmp_path / "a.pth"
        save_checkpoint(b0_state, path, variant="efficientnet_b0", semantics=SAME)
        with caplog.at_level(logging.WARNING):
            found = resolve(path, variant="efficientnet_b0", source="timm/tf_efficientnet_b0")
        assert found.semantics == source_semantics("timm/tf_efficientnet_b0")
        assert not caplog.records

    def test_source_with_other_preprocessing_than_the_record_is_logged(
        self, b0_state, tmp_path: Path, caplog
    ):
        path = tmp_path / "a.pth"
        advprop = source_semantics("timm/tf_efficientnet_b0.ap_in1k")
        save_checkpoint(b0_state, path, variant="efficientnet_b0", semantics=advprop)
        with caplog.at_level(logging.WARNING):
            resolve(path, variant="efficientnet_b0", source="timm/tf_efficientnet_b0")
        assert "other preprocessing than the file states" in caplog.text

    def test_source_that_contradicts_the_format_is_logged(self, b0_state, caplog):
        exported = export_state(b0_state, "torchvision")
        with caplog.at_level(logging.WARNING):
            found = resolve(exported, variant="efficientnet_b0", source="timm/tf_efficientnet_b0")
        assert found.semantics.padding == "same"
        assert "has the keys of torchvision (eps 1e-05, symmetric padding)" in caplog.text

    def test_source_of_another_variant(self, b0_state):
        with pytest.raises(ValueError, match="is efficientnet_b1, but the model to build is"):
            resolve(b0_state, variant="efficientnet_b0", source="timm/efficientnet_b1")

    def test_record_of_another_variant(self, b0_state, tmp_path: Path):
        path = tmp_path / "a.pth"
        save_checkpoint(b0_state, path, variant="efficientnet_b0", semantics=SAME)
        with pytest.raises(ValueError, match=r"a\.pth is efficientnet_b0, but the model to build"):
            resolve(path, variant="efficientnet_b3")

    def test_custom_models_have_no_variant_to_compare(self, b0_state):
        found = resolve(
            b0_state, variant="efficientnet(phi=0)", source="torchvision/efficientnet_b0"
        )
        assert found.semantics.bn_eps == 1e-5


class TestExporting:
    """Writing keys for a code base in which no model computes the same."""

    @pytest.mark.parametrize(
        ("fmt", "options"),
        [
            ("torchvision", {"padding": "same", "bn_eps": 1e-5}),
            ("torchvision", {}),
            ("timm", {}),
            ("lukemelas", {}),
        ],
    )
    def test_is_refused_unless_allowed(self, tmp_path: Path, fmt, options):
        model = effkernels.create_model("efficientnet_b0", **options)
        path = tmp_path / "a.pth"
        with pytest.raises(ValueError, match=f"no efficientnet_b0 of {fmt} computes the same"):
            save_checkpoint(model, path, format=fmt)
        assert not path.exists()
        save_checkpoint(model, path, format=fmt, allow_semantics_change=True)
        # Our own loader reads the true semantics from the record.
        found = resolve(path, variant="efficientnet_b0").semantics
        assert found.padding == model.config.padding
        assert found.bn_eps == model.config.bn_eps

    def test_advice_for_timm(self, tmp_path: Path):
        model = effkernels.create_model("efficientnet_b0")
        with pytest.raises(ValueError, match=r"timm\.create_model\('efficientnet_b0', bn_eps=0\.0"):
            save_checkpoint(model, tmp_path / "a.pth", format="timm")

    @pytest.mark.parametrize(
        ("fmt", "semantics", "same"),
        [
            ("timm", EARLY, "timm/efficientnet_b0"),
            ("timm", SAME, "timm/tf_efficientnet_b0"),
            ("torchvision", EARLY, "torchvision/efficientnet_b0"),
            ("lukemelas", SAME, "lukemelas/efficientnet_b0"),
        ],
    )
    def test_the_twin_is_recorded(self, b0_state, tmp_path: Path, fmt, semantics, same):
        from effkernels.checkpoints import read_state_dict

        path = tmp_path / "a.pth"
        save_checkpoint(b0_state, path, format=fmt, variant="efficientnet_b0", semantics=semantics)
        record = read_state_dict(path).record
        assert record["twin"] == same
        assert record["variant"] == "efficientnet_b0"
        assert resolve(path, variant="efficientnet_b0").semantics == semantics
