"""``effkernels predict`` on good and bad pictures of every kind."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import effkernels
from command_line import CATS, Outcome, Run
from effkernels.cli import classify, predict
from effkernels.cli.pictures import collect, prepare
from effkernels.data import sample_pictures

TRANSFORM = effkernels.Preprocessing()


def classified(result: Outcome) -> list[dict[str, Any]]:
    """The pictures of a JSON document, which must be all of standard output."""
    pictures: list[dict[str, Any]] = json.loads(result.stdout)["pictures"]
    return pictures


def _cmyk(cat: Image.Image, folder: Path) -> Path:
    cat.convert("CMYK").save(path := folder / "cmyk.jpg", quality=95)
    return path


def _palette(cat: Image.Image, folder: Path) -> Path:
    cat.quantize(256).save(path := folder / "palette.png")
    return path


def _palette_transparent(cat: Image.Image, folder: Path) -> Path:
    cat.quantize(255).save(path := folder / "transparent.gif", transparency=255)
    return path


def _grey(cat: Image.Image, folder: Path) -> Path:
    cat.convert("L").save(path := folder / "grey.jpg", quality=95)
    return path


def _sixteen_bits(cat: Image.Image, folder: Path) -> Path:
    grey = np.asarray(cat.convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(path := folder / "sixteen.png")
    return path


def _alpha(cat: Image.Image, folder: Path) -> Path:
    cat.convert("RGBA").save(path := folder / "alpha.webp", lossless=True)
    return path


def _rotated(cat: Image.Image, folder: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: viewers rotate the picture by 90 degrees clockwise
    sideways = cat.transpose(Image.Transpose.ROTATE_90)
    sideways.save(path := folder / "rotated.jpg", quality=95, exif=exif)
    return path


KINDS = [_cmyk, _palette, _palette_transparent, _grey, _sixteen_bits, _alpha, _rotated]


@pytest.mark.usefixtures("lite0_weights")
def test_a_cat_is_a_cat_in_every_kind_of_file(run: Run, cat: Image.Image, tmp_path: Path) -> None:
    paths = [make(cat, tmp_path) for make in KINDS]
    result = run("predict", *paths, "--device", "cpu", "--batch-size", 3, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    pictures = classified(result)
    assert [entry["path"] for entry in pictures] == [str(path) for path in paths]
    for entry in pictures:
        assert entry["top"][0]["label"] in CATS, entry
    grey, sixteen = pictures[3]["top"], pictures[4]["top"]
    assert [entry["label"] for entry in grey[:3]] == [entry["label"] for entry in sixteen[:3]]


@pytest.mark.usefixtures("lite0_weights")
def test_exif_rotation_is_undone(run: Run, cat: Image.Image, tmp_path: Path) -> None:
    cat.save(upright := tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = cat.transpose(Image.Transpose.ROTATE_90)
    sideways.save(tagged := tmp_path / "tagged.png", exif=exif)
    sideways.save(untagged := tmp_path / "untagged.png")
    tops = [p["top"] for p in classified(run("predict", upright, tagged, untagged, "--json"))]
    assert tops[0] == tops[1]
    assert tops[0] != tops[2]


@pytest.mark.usefixtures("lite0_weights")
def test_float16_on_the_cpu_works(run: Run, cat: Image.Image, tmp_path: Path) -> None:
    cat.save(path := tmp_path / "cat.png")
    result = run("predict", path, "--device", "cpu", "--dtype", "float16", "--topk", 1)
    assert result.exit_code == 0, result.stderr
    assert any(name in result.stdout for name in CATS)


@pytest.fixture
def folder(cat: Image.Image, tmp_path: Path) -> Path:
    """Three good pictures in two levels, one corrupt and one empty, and files to be skipped."""
    root = tmp_path / "pictures"
    (root / "deep" / "er").mkdir(parents=True)
    (root / ".hidden").mkdir()
    small = cat.resize((90, 60))
    for name in ("b.png", "a.JPG", "deep/er/c.bmp", ".hidden/d.png", ".e.png"):
        small.save(root / name)
    (root / "notes.txt").write_text("not a picture")
    (root / "deep" / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (root / "zero.jpg").touch()
    return root


def test_folders_are_searched_and_bad_pictures_skipped(
    run: Run, folder: Path, seven_classes: Path
) -> None:
    result = run("predict", folder, "--weights", seven_classes, "--batch-size", 2, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["num_classes"] == 7
    names = [Path(entry["path"]).relative_to(folder) for entry in document["pictures"]]
    assert names == [Path("a.JPG"), Path("b.png"), Path("deep/er/c.bmp")]
    skipped = [Path(entry["path"]).name for entry in document["skipped"]]
    assert skipped == ["corrupt.png", "zero.jpg"]
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("effkernels: skipped: ") for line in lines)
    assert "corrupt.png" in lines[0]
    assert "zero.jpg" in lines[1]
    assert "is empty" in lines[1]


def test_classes_of_other_weights_are_shown_by_index(
    run: Run, folder: Path, seven_classes: Path
) -> None:
    result = run("predict", folder / "b.png", "--weights", seven_classes, "--topk", 7)
    assert (result.exit_code, result.stderr) == (0, "")
    assert str(folder / "b.png") in result.stdout
    assert sorted(line.split("class ")[1].strip() for line in result.stdout.splitlines()[1:8]) == [
        str(index) for index in range(7)
    ]


def test_the_batch_size_changes_nothing(run: Run, folder: Path, seven_classes: Path) -> None:
    def shares(batch_size: int) -> list[float]:
        result = run("predict", folder, "-w", seven_classes, "-b", batch_size, "-k", 7, "--json")
        return [
            entry["probability"]
            for picture in classified(result)
            for entry in sorted(picture["top"], key=lambda e: e["index"])
        ]

    assert shares(1) == pytest.approx(shares(3), rel=1e-4)


def test_only_unreadable_pictures_fail_with_a_complete_document(
    run: Run, folder: Path, seven_classes: Path
) -> None:
    bad = [folder / "zero.jpg", folder / "deep" / "corrupt.png"]
    result = run("predict", *bad, "--weights", seven_classes, "--json")
    assert result.exit_code == 2
    assert classified(result) == []
    assert len(json.loads(result.stdout)["skipped"]) == 2
    assert result.stderr.splitlines()[-1] == "effkernels: none of 2 pictures could be read"


def test_a_missing_file_among_others_is_skipped(
    run: Run, folder: Path, seven_classes: Path
) -> None:
    result = run("predict", folder / "b.png", folder / "gone.png", "-w", seven_classes, "--json")
    assert result.exit_code == 1
    assert len(classified(result)) == 1
    assert result.stderr == (
        f"effkernels: skipped: no such file or folder: '{folder / 'gone.png'}'\n"
    )


def test_a_named_file_is_read_whatever_its_suffix(
    run: Run, cat: Image.Image, seven_classes: Path, tmp_path: Path
) -> None:
    cat.save(path := tmp_path / "picture.data", format="png")
    assert run("predict", path, "-w", seven_classes).exit_code == 0


def test_markup_in_a_name_is_shown_literally(
    run: Run, cat: Image.Image, seven_classes: Path, tmp_path: Path
) -> None:
    cat.save(path := tmp_path / "[bold]cat.png")
    assert "[bold]cat.png" in run("predict", path, "-w", seven_classes).stdout


def test_weights_that_compute_nan_are_one_line(
    run: Run, folder: Path, seven_classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> Any:
        return real(*arguments) * float("nan")

    real: Callable[..., Any] = classify.logits_of
    monkeypatch.setattr(predict, "logits_of", broken)
    assert "NaN" in run("predict", folder / "b.png", "-w", seven_classes).error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no such file or folder: 'nowhere'"),
        (["EMPTY"], "no pictures in folder"),
        ([], "Missing argument 'IMAGE"),
        (["PICTURE", "--topk", "0"], "--topk must be at least 1, got 0"),
        (["PICTURE", "--topk", "8"], "--topk must be at most 7"),
        (["PICTURE", "--topk", "many"], "--topk"),
        (["PICTURE", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["PICTURE", "--dtype", "int8"], "'int8' is not one of"),
        (["PICTURE", "--device", "toaster"], "--device 'toaster' is no device"),
        (["PICTURE", "--device", "meta"], "only cpu and cuda"),
        (["PICTURE", "--device", "cuda:99"], "--device 'cuda:99'"),
        (["PICTURE", "--model", "efficientnet_lite9"], "did you mean efficientnet_lite"),
        (["PICTURE", "--model", "efficientnet_b0"], "efficientnet_lite0"),
        (["PICTURE", "--weights", "gone.pth"], "no such checkpoint file: gone.pth"),
        (["PICTURE", "--source", "nobody/nothing"], "unknown source 'nobody/nothing'"),
    ],
)
def test_bad_arguments_are_one_line(
    run: Run, folder: Path, seven_classes: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"PICTURE": str(folder / "b.png"), "EMPTY": str(tmp_path / "empty")}
    given = [places.get(argument, argument) for argument in arguments]
    if "--weights" not in given:
        given += ["--weights", str(seven_classes)]
    assert said in run("predict", *given).error


def test_pipes_and_sockets_in_a_folder_are_skipped(
    run: Run, tmp_path: Path, cat: Image.Image, seven_classes: Path
) -> None:
    cat.save(tmp_path / "cat.png")
    os.mkfifo(tmp_path / "pipe.png")
    result = run("predict", tmp_path, "--weights", seven_classes, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["pictures"]
    assert [Path(picture["path"]).name for picture in found] == ["cat.png"]
    assert "is not a regular file: pipe" in run("predict", tmp_path / "pipe.png").error


def test_control_characters_in_names_do_not_reach_the_terminal(
    run: Run, tmp_path: Path, cat: Image.Image, seven_classes: Path
) -> None:
    cat.save(tmp_path / "\x1b]0;owned\x07.png")
    (tmp_path / "\x1b[2J.png").write_bytes(b"no picture")
    result = run("predict", tmp_path, "--weights", seven_classes)
    assert result.exit_code == 1
    assert "\\x1b]0;owned\\x07.png" in result.stdout
    assert "\\x1b[2J.png" in result.stderr
    assert not {"\x1b", "\x07"} & set(result.stdout + result.stderr)


def test_labels_are_shown_in_a_narrow_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, seven_classes: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    with sample_pictures() as (cat_path, _):
        result = run("predict", cat_path, "--weights", seven_classes)
    assert result.exit_code == 0, result.stderr
    labels = [line for line in result.stdout.splitlines() if "%" in line]
    assert len(labels) == 5
    assert all(re.search(r" class [0-6]\b", line) and len(line) <= 30 for line in labels)


def test_a_picture_on_standard_input(
    run: Run, monkeypatch: pytest.MonkeyPatch, seven_classes: Path
) -> None:
    arguments = ("predict", "-", "--weights", seven_classes, "--json")
    with sample_pictures() as (cat_path, _):
        monkeypatch.setattr(sys, "stdin", open(cat_path))  # noqa: SIM115 - closed by monkeypatch
        piped = collect(["-"])
        assert piped == ([Path("-")], [])
        [batch] = prepare(piped[0], 1, TRANSFORM)
        assert torch.equal(batch.tensors[0], TRANSFORM(cat_path))
    assert "it is empty" in run(*arguments).stderr


def test_a_url_is_named_as_it_was_typed(run: Run) -> None:
    url = "https://example.org//cat.jpg"
    assert f"pictures are files: download '{url}' first" in run("predict", url).error


@pytest.mark.parametrize("name", ["bf16", "BFLOAT16", "torch.bfloat16"])
def test_short_names_of_types(run: Run, seven_classes: Path, name: str) -> None:
    with sample_pictures() as (cat_path, _):
        result = run("predict", cat_path, "--weights", seven_classes, "--dtype", name, "--json")
    assert json.loads(result.stdout)["dtype"] == "bfloat16"


def test_the_error_for_an_unknown_type_lists_the_known_ones(run: Run) -> None:
    assert (
        "'f8' is not one of float32, float16, bfloat16"
        in run("predict", "-", "--dtype", "f8").error
    )


def test_errors_name_options_instead_of_arguments(run: Run, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    path = tmp_path / "b0.pth"
    torch.save(timm.create_model("efficientnet_b0").state_dict(), path)
    with sample_pictures() as (cat_path, _):
        error = run("predict", cat_path, "-m", "efficientnet_b0", "-w", path).error
    assert "--source 'timm/" in error
    assert "source=" not in error
