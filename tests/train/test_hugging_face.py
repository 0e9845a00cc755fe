"""Data sets of Hugging Face, saved to a local folder."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from effkernels import train
from oracles import oracle
from training import make_job, make_pictures


def stored(folder: Path, name: str) -> dict[str, list[Any]]:
    source = train.FolderSource(folder / name)
    pictures = [{"bytes": path.read_bytes(), "path": None} for path in source.paths]
    return {"number": list(range(len(source))), "image": pictures, "label": list(source.labels)}


def save(splits: dict[str, dict[str, list[Any]]], classes: list[str], folder: Path) -> str:
    datasets = oracle("datasets")
    features = datasets.Features(
        number=datasets.Value("int64"),
        image=datasets.Image(),
        label=datasets.ClassLabel(names=classes),
    )
    made = {
        name: datasets.Dataset.from_dict(rows, features=features) for name, rows in splits.items()
    }
    datasets.DatasetDict(made).save_to_disk(str(folder))
    return f"datasets:{folder}"


def test_a_saved_data_set_trains_as_its_folder_does(pictures: Path, tmp_path: Path) -> None:
    splits = {"train": stored(pictures, "train"), "test": stored(pictures, "val")}
    data = save(splits, ["blue", "green", "red"], tmp_path / "saved")
    found, folder = train.open_data(data), train.open_data(str(pictures))
    assert found.classes == folder.classes
    for ours, theirs in ((found.train, folder.train), (found.validation, folder.validation)):
        assert list(ours.labels) == list(theirs.labels)
        assert np.array_equal(np.asarray(ours.picture(5)), np.asarray(theirs.picture(5)))
    assert found.train.fingerprint() == train.open_data(data).train.fingerprint()
    results = [
        train.run(make_job(place, tmp_path / name, epochs=1))
        for name, place in (("ours", Path(data)), ("theirs", pictures))
    ]
    ours, theirs = (result.history[0] for result in results)
    assert (ours["train_loss"], ours["loss"]) == (theirs["train_loss"], theirs["loss"])


def test_what_does_not_do_is_one_line(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures" / "train", {"a": 2, "b": 2})
    rows = stored(tmp_path / "pictures", "train")
    rows["image"][1] = {"bytes": b"broken", "path": None}
    data = save({"train": rows}, ["a", "b"], tmp_path / "saved")
    with pytest.raises(
        ValueError, match="has no split validation or val or valid or test, only train"
    ):
        train.open_data(data)
    source = train.open_data(data, holdout=1.0).train
    whole = train.HuggingFaceSource(data, training=True)
    assert len(source) == 3
    with pytest.raises(ValueError, match="'picture 1': not a picture"):
        whole.picture(1)
    datasets = oracle("datasets")
    datasets.DatasetDict(train=datasets.Dataset.from_dict({"x": [1]})).save_to_disk(
        str(tmp_path / "numbers")
    )
    with pytest.raises(
        ValueError, match="needs a column of pictures and one of class labels; it has x"
    ):
        train.open_data(f"datasets:{tmp_path / 'numbers'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="cannot be loaded: ") as error:
        train.open_data(f"datasets:{tmp_path / 'empty'}")
    assert "\n" not in str(error.value)


def test_pictures_by_path_are_read(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 6)).save(tmp_path / "0.jpg")
    buffer = io.BytesIO()
    Image.new("L", (8, 6), 77).save(buffer, "PNG")
    rows = {
        "number": [0, 1],
        "image": [
            {"bytes": None, "path": str(tmp_path / "0.jpg")},
            {"bytes": buffer.getvalue(), "path": None},
        ],
        "label": [0, 1],
    }
    data = save({"train": rows, "test": rows}, ["a", "b"], tmp_path / "saved")
    source = train.HuggingFaceSource(data, training=True)
    assert [source.picture(i).mode for i in range(2)] == ["RGB", "RGB"]
    assert source.picture(1).getpixel((3, 3)) == (77, 77, 77)
