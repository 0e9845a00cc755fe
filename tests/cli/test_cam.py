"""``effkernels cam``: pictures with class activation maps over them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import effkernels
from command_line import Run
from effkernels.cli.cam import class_index, scaled
from effkernels.data import imagenet_classes, sample_pictures


@pytest.mark.usefixtures("lite0_weights")
def test_the_map_of_the_cat_is_where_the_cat_is(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "cat.png"
    with sample_pictures() as (cat, _):
        result = run("cam", cat, "-o", out, "--json")
    (one,) = json.loads(result.stdout)["maps"]
    assert "cat" in one["class"]["label"] or one["class"]["label"] == "tabby"
    heat = scaled(torch.tensor(one["map"]))
    assert heat.shape == (7, 7)
    # Its face is in the middle of the crop; the corners are a cushion.
    assert heat[2:5, 2:5].mean() > 2 * heat[[0, 0, 6, 6], [0, 6, 0, 6]].mean()
    with Image.open(out) as written:
        assert written.size == (2 * 224 + 8, 224 + 20)
        pixels = np.asarray(written).astype(int)
    picture, overlay = pixels[:224, :224], pixels[:224, -224:]
    assert picture[..., 0].std() > 20
    redder = (overlay - picture)[..., 0] - (overlay - picture)[..., 2]
    hottest = divmod(int(heat.argmax()), 7)
    coldest = divmod(int(heat.argmin()), 7)
    at = [redder[r * 32 : r * 32 + 32, c * 32 : c * 32 + 32].mean() for r, c in (hottest, coldest)]
    assert at[0] > 50 > 0 > at[1]


def test_models_side_by_side(run: Run, tmp_path: Path, seven_classes: Path) -> None:
    wide = tmp_path / "wide.pth"
    torch.manual_seed(0)
    effkernels.checkpoints.save_checkpoint(
        effkernels.create_model("efficientnet_b1", num_classes=9), wide
    )
    out = tmp_path / "both.png"
    with sample_pictures() as (cat, _):
        result = run(
            *("cam", cat, "--class", "6", "--output", out),
            *("-m", "efficientnet_lite0", "-w", seven_classes),
            *("-m", "efficientnet_b1", "-w", wide),
        )
    assert result.exit_code == 0, result.stderr
    first, second, last = result.stdout.splitlines()
    assert first.startswith("efficientnet_lite0: class 6 ")
    assert second.startswith("efficientnet_b1: class 6 ")
    assert last == f"written to {out}"
    with Image.open(out) as written:  # B1's crop is the larger one
        assert written.size == (3 * 240 + 2 * 8, 240 + 20)


def test_a_file_is_replaced_only_on_request(run: Run, tmp_path: Path, seven_classes: Path) -> None:
    out = tmp_path / "out.jpg"
    out.write_text("kept")
    with sample_pictures() as (cat, _):
        command = ("cam", cat, "-o", out, "-w", seven_classes)
        assert f"{out} exists already: pass --force" in run(*command).error
        assert out.read_text() == "kept"
        assert run(*command, "--force").exit_code == 0
    with Image.open(out) as written:
        assert written.format == "JPEG"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "out.txt"], "must end in one of .png"),
        (["-o", "nowhere/out.png"], "no such folder nowhere"),
        (["-o", "out.png", "-m", "efficientnet_b9"], "no model named 'efficientnet_b9'"),
        (["-o", "out.png", "-w", "a", "-w", "b"], "--weights must be given once"),
        (["-o", "out.png", "--class", "7"], "--class must be at most 6, got 7"),
        (["-o", "out.png", "--class", "cat"], "no class has such a name"),
        (["-o", "out.png", "--device", "toaster"], "is no device"),
    ],
)
def test_wrong_options_are_one_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seven_classes: Path,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "-w" not in arguments and "-m" not in arguments:
        arguments = [*arguments, "-w", str(seven_classes)]
    with sample_pictures() as (cat, _):
        assert said in run("cam", cat, *arguments).error
    assert not (tmp_path / "out.png").exists()


def test_an_unreadable_picture_is_one_line(run: Run, tmp_path: Path, seven_classes: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    command = ("cam", tmp_path / "broken.png", "-o", tmp_path / "out.png", "-w", seven_classes)
    assert "not a picture in a format that Pillow reads" in run(*command).error


def test_classes_are_found_by_name() -> None:
    names = imagenet_classes()
    assert class_index("281", names) == 281
    assert class_index("TABBY", names) == names.index("tabby")
    assert names[class_index("Egyptian", names)] == "Egyptian cat"
    with pytest.raises(ValueError, match=r"is in .* names of classes: .*terrier"):
        class_index("terrier", names)


def test_a_map_without_support_is_dark() -> None:
    assert not scaled(-torch.ones(2, 2)).any()
    torch.testing.assert_close(
        scaled(torch.tensor([-1.0, 1.0, 2.0])), torch.tensor([0.0, 0.5, 1.0])
    )
