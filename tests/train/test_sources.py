"""Where pictures come from, and what is wrong with those that do not do."""

from __future__ import annotations

import gzip
import shutil
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effkernels import train
from effkernels.train.loading import Pictures, TrainingBatches, ValidationBatches, collate, loader
from effkernels.train.sources import FASHION_MNIST, fashion_mnist
from effkernels.train.splits import hold_out
from training import make_pictures


def test_a_folder_of_classes(tmp_path: Path) -> None:
    make_pictures(tmp_path, {"b": 2, "a": 3, ".hidden": 1})
    (tmp_path / "a" / "deeper").mkdir()
    (tmp_path / "a" / "000.png").rename(tmp_path / "a" / "deeper" / "x.PNG")
    (tmp_path / "notes.txt").touch()
    source = train.FolderSource(tmp_path)
    assert source.classes == ("a", "b")
    assert list(source.labels) == [0, 0, 0, 1, 1]
    assert source.name(2) == "a/deeper/x.PNG"
    assert source.picture(0).mode == "RGB"
    before = source.fingerprint()
    shutil.copytree(tmp_path, tmp_path.parent / "moved")
    assert train.FolderSource(tmp_path.parent / "moved").fingerprint() == before
    (tmp_path / "b" / "000.png").rename(tmp_path / "b" / "005.png")
    assert train.FolderSource(tmp_path).fingerprint() != before


def write(folder: Path, *classes: str) -> Path:
    return make_pictures(folder, dict.fromkeys(classes, 2))


def test_folders_that_do_not_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no such folder: {tmp_path / 'none'}"):
        train.FolderSource(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="for each class, at least two; found none"):
        train.FolderSource(tmp_path / "empty")
    with pytest.raises(ValueError, match="found only 'a'"):
        train.FolderSource(write(tmp_path / "one", "a"))
    write(tmp_path / "gap", "a", "b")
    (tmp_path / "gap" / "c").mkdir()
    with pytest.raises(ValueError, match="1 of 3 classes have no pictures: c"):
        train.FolderSource(tmp_path / "gap")


def test_loops_of_links(tmp_path: Path) -> None:
    write(tmp_path / "data", "a", "b")
    (tmp_path / "data" / "a" / "again").symlink_to(tmp_path / "data")
    assert len(train.FolderSource(tmp_path / "data")) == 4  # links inside a class are not followed
    (tmp_path / "data" / "c").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="data/c links back to"):
        train.FolderSource(tmp_path / "data")


def test_validation_pictures(tmp_path: Path) -> None:
    data = write(tmp_path / "plain", "a", "b").parent / "plain"
    with pytest.raises(ValueError, match=r"no validation pictures: .*--holdout 0.1"):
        train.open_data(str(data))
    other = write(tmp_path / "other", "b", "c")
    said = "other classes: only training has a; only validation has c"
    with pytest.raises(ValueError, match=said):
        train.open_data(str(data), str(other))
    with pytest.raises(ValueError, match="either --validation or --holdout"):
        train.open_data(str(data), str(other), 0.5)
    write(tmp_path / "both" / "train", "a", "b")
    (tmp_path / "both" / "val").mkdir()
    with pytest.raises(ValueError, match="both/val must hold a folder of pictures"):
        train.open_data(str(tmp_path / "both"))
    write(tmp_path / "both" / "val", "a", "b")
    found = train.open_data(str(tmp_path / "both"))
    assert (len(found.train), len(found.validation), found.classes) == (4, 4, ("a", "b"))


@pytest.mark.parametrize(("holdout", "count"), [(0.2, 8), (7, 7), (1, 1)])
def test_held_out_pictures(holdout: float, count: int) -> None:
    labels = [0] * 10 + [1] * 20 + [2] * 10
    source = train.ArraySource(np.zeros((40, 2, 2), np.uint8), labels, "abc")
    found = hold_out(source, holdout, seed=3)
    names = [found.train.name(i) for i in range(len(found.train))]
    held = [found.validation.name(i) for i in range(len(found.validation))]
    assert len(held) == count
    assert sorted(names + held) == sorted(source.name(i) for i in range(40))
    shares = Counter(found.validation.labels)
    assert all(abs(shares[k] - count * n / 40) < 1 for k, n in Counter(labels).items())
    again = hold_out(source, holdout, seed=3)
    assert again.validation.fingerprint() == found.validation.fingerprint()
    if count > 1:
        assert (
            hold_out(source, holdout, seed=4).validation.fingerprint()
            != found.validation.fingerprint()
        )


@pytest.mark.parametrize("holdout", [0.0, -1.0, 4.0, 0.1, float("nan"), float("inf")])
def test_shares_that_hold_out_nothing_or_all(holdout: float) -> None:
    source = train.ArraySource(np.zeros((4, 2, 2), np.uint8), [0, 0, 1, 1], "ab")
    with pytest.raises(ValueError, match="--holdout must be a share below 1 or a number"):
        hold_out(source, holdout, 0)


@pytest.mark.parametrize(("subset", "count"), [(0.5, 4), (6, 6)])
def test_part_of_the_training_pictures(tmp_path: Path, subset: float, count: int) -> None:
    data = str(make_pictures(tmp_path, {"a": 5, "b": 5}))
    found, again = (train.open_data(data, holdout=2, seed=1, subset=subset) for _ in range(2))
    whole = train.open_data(data, holdout=2, seed=1)
    names, all_names = ({d.train.name(i) for i in range(len(d.train))} for d in (found, whole))
    assert len(names) == count
    assert names < all_names
    assert found.train.fingerprint() == again.train.fingerprint()
    assert found.validation.fingerprint() == whole.validation.fingerprint()
    for share, said in (
        (8, "--subset must be a share below 1 or a number of pictures below 8"),
        (float("nan"), "--subset must be"),
        (1, "--subset 1 has no picture of class 'a' to train on"),
    ):
        with pytest.raises(ValueError, match=said):
            train.open_data(data, holdout=2, seed=1, subset=share)


def test_a_class_needs_a_picture_to_train_on() -> None:
    source = train.ArraySource(np.zeros((5, 2, 2), np.uint8), [0, 1, 1, 1, 1], "ab")
    with pytest.raises(ValueError, match="leaves no picture of class 'a'"):
        hold_out(source, 3, 0)


def write_idx(path: Path, values: np.ndarray, *, compressed: bool) -> None:
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    content = header + values.astype(np.uint8).tobytes()
    path.with_name(path.name + ".gz" * compressed).write_bytes(
        gzip.compress(content) if compressed else content
    )


@pytest.mark.parametrize("compressed", [False, True])
def test_fashion_mnist(tmp_path: Path, compressed: bool) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (12, 28, 28))
    labels = np.arange(12) % 10
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", pictures, compressed=compressed)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", labels, compressed=compressed)
    found = train.open_data(f"fashion-mnist:{tmp_path}")
    assert (len(found.train), len(found.validation)) == (12, 12)
    assert found.classes[found.train.labels[9]] == "Ankle boot"
    picture = found.train.picture(3)
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture)[..., 1], pictures[3])
    damaged = tmp_path / f"train-images-idx3-ubyte{'.gz' * compressed}"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.* (cannot be read|is damaged)"):
        fashion_mnist(f"fashion-mnist:{tmp_path}", "train")


def test_without_fashion_mnist_the_error_says_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="apt-get install dataset-fashion-mnist, or download") as e:
        train.open_data(f"{FASHION_MNIST}:{tmp_path}")
    assert "torchvision.datasets.FashionMNIST('FOLDER', download=True)" in str(e.value)
    assert "\n" not in str(e.value)


def source_of(count: int) -> train.ArraySource:
    pictures = np.arange(count, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    return train.ArraySource(pictures, [i % 2 for i in range(count)], "ab")


def test_processes_take_what_one_with_a_larger_batch_takes() -> None:
    source = source_of(23)
    for epoch in (0, 1):
        whole = list(TrainingBatches(source, 6, seed=5, epoch=epoch))
        shares = [
            list(TrainingBatches(source, 2, seed=5, epoch=epoch, rank=rank, world=3))
            for rank in range(3)
        ]
        assert len(whole) == 3
        for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
            assert sorted(batch) == sorted(key for part in parts for key in part)
    assert list(TrainingBatches(source, 6, seed=5, epoch=0)) != whole
    skipped = list(TrainingBatches(source, 6, seed=5, epoch=1, skip=2))
    assert skipped == whole[2:]
    with pytest.raises(
        ValueError, match="23 training pictures do not fill one batch of 12 in each of 2"
    ):
        TrainingBatches(source, 12, seed=0, epoch=0, world=2)


def test_validation_takes_every_picture_once() -> None:
    keys = [
        key
        for rank in range(3)
        for batch in ValidationBatches(source_of(11), 2, rank=rank, world=3)
        for key in batch
    ]
    assert sorted(keys) == [(0, index) for index in range(11)]


@pytest.mark.parametrize("workers", [0, 1])
def test_random_numbers_follow_from_epoch_and_index(workers: int) -> None:
    def transform(picture: Image.Image) -> torch.Tensor:
        return torch.rand(1, 1, 1) + float(np.asarray(picture)[0, 0, 0])

    pictures = Pictures(source_of(8), transform, seed=1, replace=True)
    seen: dict[tuple[int, int], float] = {}
    for epoch, size in ((0, 2), (0, 4), (1, 4)):
        batches = TrainingBatches(pictures.source, size, seed=1, epoch=epoch)
        before = torch.get_rng_state()
        read = loader(pictures, batches, workers, torch.device("cpu"))
        for keys, batch in zip(list(batches), read, strict=True):
            for key, value in zip(keys, batch.images.flatten().tolist(), strict=True):
                assert seen.setdefault(key, value) == value
        assert torch.equal(torch.get_rng_state(), before)
    assert len(set(seen.values())) == 16


def test_an_unreadable_picture_is_replaced_or_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    (tmp_path / "a" / "001.png").write_bytes(b"broken")
    source = train.FolderSource(tmp_path)

    def transform(picture: Image.Image) -> torch.Tensor:
        return torch.zeros(3, 2, 2)

    replaced = Pictures(source, transform, 0, replace=True)[0, 1]
    assert replaced.label == 1
    assert "001.png" in replaced.problems[0]
    left_out = Pictures(source, transform, 0, replace=False)
    batch = collate([left_out[0, i] for i in range(4)])
    assert batch.labels.tolist() == [0, 1, 1]
    assert len(batch.problems) == 1


def odd_pictures(folder: Path) -> None:
    """One picture of every kind that reading must turn into upright RGB of 8 bits."""
    red = Image.new("RGB", (40, 20), (200, 10, 10))
    red.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.full((20, 40), 40_000, np.uint16)).save(folder / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    red.save(folder / "turned.jpg", exif=exif)
    red.save(folder / "moving.gif", save_all=True, append_images=[Image.new("RGB", (40, 20))])


def test_odd_pictures_are_read_as_predict_reads_them(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    odd_pictures(tmp_path / "a")
    source = train.FolderSource(tmp_path)
    found = {source.name(i): source.picture(i) for i in range(len(source))}
    assert all(picture.mode == "RGB" for picture in found.values())
    assert found["a/turned.jpg"].size == (20, 40)
    assert np.asarray(found["a/sixteen.png"])[0, 0].tolist() == [156, 156, 156]
    for name in ("a/cmyk.jpg", "a/moving.gif"):
        red, green, _ = np.asarray(found[name])[5, 5].astype(int)
        assert red - green > 120
