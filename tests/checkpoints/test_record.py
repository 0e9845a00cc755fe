"""What our own files state beside the tensors: classes, and how wide and deep a scaled model is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from effkernels.checkpoints import Checkpoint, resolve, save_checkpoint
from effkernels.models import EfficientNet
from effkernels.train.building import class_names, load_trained, model_of, new_model

NAME = "efficientnet_b0"


@pytest.fixture
def model() -> EfficientNet:
    return new_model(NAME, 3, width=0.25, depth=0.25).eval()


def saved(model: EfficientNet, path: Path, **stated: object) -> Checkpoint:
    save_checkpoint(model, path, **stated)  # type: ignore[arg-type]
    return resolve(path, variant=NAME)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("format", ["effkernels", "timm"])
def test_a_file_is_enough_to_build_a_scaled_model(
    model: EfficientNet, tmp_path: Path, suffix: str, format: str
) -> None:
    path = tmp_path / f"weights.{suffix}"
    options = {"format": format, "allow_semantics_change": True}
    found = saved(model, path, classes="abc", multipliers=(0.25, 0.25), **options)
    assert (found.num_classes, found.classes, found.multipliers) == (
        3,
        ("a", "b", "c"),
        (0.25, 0.25),
    )
    assert model_of(str(path)) == NAME
    built = load_trained(NAME, str(path), None, torch.device("cpu"))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(built.model(x), model(x))


def test_other_files_state_nothing(tmp_path: Path) -> None:
    whole = new_model("efficientnet_lite0", 5)
    torch.save(whole.state_dict(), tmp_path / "plain.pth")
    found = resolve(tmp_path / "plain.pth", variant="efficientnet_lite0")
    assert (found.num_classes, found.classes, found.multipliers) == (5, None, None)
    assert model_of(str(tmp_path / "plain.pth")) == "efficientnet_lite0"  # by its shapes


def test_names_of_another_number_of_classes_are_not_taken(
    model: EfficientNet, tmp_path: Path
) -> None:
    assert saved(model, tmp_path / "weights.pth", classes="ab").classes is None
    assert class_names(3, None) == ("class 0", "class 1", "class 2")
    assert class_names(1000, None)[281] == "tabby"
    assert class_names(3, "abc") == ("a", "b", "c")


def test_a_file_of_no_named_model(tmp_path: Path) -> None:
    torch.save(new_model(NAME, 3, width=0.5).state_dict(), tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="does not say which model it is of: pass --model"):
        model_of(str(tmp_path / "odd.pth"))
