"""Shards of webdataset: what is in them, how processes share them, and where an epoch goes on."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from effkernels import train
from effkernels.train import shards
from effkernels.train.shards import ShardBatches, shard_loader
from oracles import oracle
from training import make_job

CLASSES = ("blue", "green", "red")


@pytest.fixture(autouse=True)
def library() -> None:
    oracle("webdataset")


def write_shard(path: Path, samples: Sequence[tuple[str, dict[str, bytes]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, files in samples:
            for suffix, content in files.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_shards(pictures: Path, folder: Path, count: int, *, names: bool = True) -> str:
    """The pictures of a folder of classes, mixed, in ``count`` shards; the pattern that names them."""
    source = train.FolderSource(pictures)
    order = np.random.default_rng(0).permutation(len(source)).tolist()
    for shard, indices in enumerate(np.array_split(order, count)):
        samples = []
        for index in indices:
            label: Any = source.labels[index]
            label = source.classes[label] if names else label
            files = {"png": source.paths[index].read_bytes(), "cls": f"{label}\n".encode()}
            samples.append((f"deep/{index:04}", files))
        write_shard(folder / f"s-{shard:02}.tar", samples)
    return str(folder / f"s-{{00..{count - 1:02}}}.tar")


def test_pictures_and_labels(pictures: Path, tmp_path: Path) -> None:
    folder = train.FolderSource(pictures / "train")
    found = train.ShardSource(write_shards(pictures / "train", tmp_path, 3))
    assert found.classes == CLASSES
    assert found.starts == [0, 8, 15, 22]
    for index in (0, 7, 8, 21):
        number = int(found.name(index).rpartition("/")[2])
        assert found.labels[index] == folder.labels[number]
        assert np.array_equal(np.asarray(found.picture(index)), np.asarray(folder.picture(number)))
    assert found.name(8).startswith("s-01.tar/deep/")
    assert train.ShardSource(str(tmp_path / "*.tar")).fingerprint() == found.fingerprint()
    # The same labels as numbers, and the names beside them.
    numbers = train.ShardSource(write_shards(pictures / "train", tmp_path / "n", 3, names=False))
    assert numbers.classes == ("0", "1", "2")
    (tmp_path / "n" / "classes.txt").write_text("blue\ngreen\nred\n")
    named = train.ShardSource(str(tmp_path / "n" / "*.tar"))
    assert (named.classes, list(named.labels)) == (CLASSES, list(found.labels))


@pytest.mark.parametrize(
    ("stored", "label"),
    [(3, 3), ("cat", "cat"), ({"label": 1}, 1), ({"x": 0, "cls": "dog"}, "dog")],
)
def test_labels_in_json(tmp_path: Path, stored: Any, label: int | str) -> None:
    other = 0 if isinstance(label, int) else "a"
    samples = [
        ("a", {"jpg": b"", "json": json.dumps(stored).encode()}),
        ("b", {"cls": str(other).encode(), "JPG": b""}),
    ]
    write_shard(tmp_path / "x.tar", samples)
    found = train.ShardSource(str(tmp_path / "x.tar"))
    assert found.labels[0] == (label if isinstance(label, int) else found.classes.index(label))


PICTURE = {"png": b"some", "cls": b"0"}


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([("a", {"cls": b"0"})], r"'a' has no picture, only \.cls"),
        ([("a", {"png": b""})], "'a' has no label"),
        ([("a", {"png": b"", "cls": b" "})], "'a' has no label"),
        ([("a", {"png": b"", "json": b"{}"})], "'a' has no label"),
        ([("a", {"png": b"", "json": b"true"})], "'a' has no label"),
        ([("a", {"png": b"", "json": b"{"})], "the .json of 'a' is damaged"),
        ([("a", PICTURE)], "at least two classes; found 1"),
        ([("a", PICTURE), ("b", {"png": b"", "cls": b"x"})], "numbers from 0 on, or all of them"),
        ([], "at least two classes; found 0"),
    ],
)
def test_samples_that_do_not_do(tmp_path: Path, samples: Any, said: str) -> None:
    write_shard(tmp_path / "x.tar", samples)
    with pytest.raises(ValueError, match=said) as error:
        train.ShardSource(str(tmp_path / "x.tar"))
    assert "\n" not in str(error.value)


def test_files_that_do_not_do(pictures: Path, tmp_path: Path) -> None:
    pattern = write_shards(pictures / "train", tmp_path, 3)
    with pytest.raises(ValueError, match=r"no shards match .*none/\*\.tar"):
        train.open_data(str(tmp_path / "none" / "*.tar"))
    with pytest.raises(ValueError, match=r"no such shard: .*s-03\.tar \(2 of 5 are missing\)"):
        train.open_data(str(tmp_path / "s-{00..04}.tar"))
    with pytest.raises(ValueError, match=r"must be local files, to which https://x/a-0\.tar has"):
        train.open_data("https://x/a-{0..3}.tar")
    with pytest.raises(ValueError, match=r"no validation pictures beside shards: pass --val"):
        train.open_data(pattern)
    (tmp_path / "classes.txt").write_text("blue\nred\n")
    with pytest.raises(
        ValueError, match=r"has the label 'green', which classes\.txt does not have"
    ):
        train.open_data(pattern, holdout=3)
    whole = (tmp_path / "s-01.tar").read_bytes()
    for content in (b"no tar at all", whole[:2000]):
        (tmp_path / "s-01.tar").write_bytes(content)
        with pytest.raises(ValueError, match=r"s-01\.tar is no tar file, or damaged"):
            train.ShardSource(pattern)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    with pytest.raises(ImportError, match=r"\.tar shards needs webdataset.*effkernels\[train\]"):
        train.open_data("x-{0..3}.tar")


def read(source: train.ShardSource, workers: int = 0, **options: Any) -> list[list[int]]:
    """The indices of the pictures of each batch, which stand in their pixels."""
    batches = ShardBatches(
        source,
        lambda picture: torch.tensor(float(picture)),
        2,
        options.pop("batches", 4),
        **options,
    )
    loaded = shard_loader(batches, workers, torch.device("cpu"))
    return [batch.images.int().tolist() for batch in loaded]


class Numbered(train.ShardSource):
    """Every picture is its index."""

    def decode(self, index: int, content: bytes) -> Any:
        return index


@pytest.fixture
def source(pictures: Path, tmp_path: Path) -> Numbered:
    return Numbered(write_shards(pictures / "train", tmp_path, 6))  # of 4, 4, 4, 4, 3 and 3


def shards_of(source: train.ShardSource, indices: list[list[int]]) -> set[int]:
    ends = source.starts[1:]
    return {next(i for i, e in enumerate(ends) if x < e) for x in itertools.chain(*indices)}


def test_processes_and_their_workers_have_shards_of_their_own(source: Numbered) -> None:
    found = [read(source, seed=1, epoch=0, rank=rank, world=2, batches=5) for rank in (0, 1)]
    parts = [shards_of(source, indices) for indices in found]
    assert parts[0] | parts[1] == set(range(6))
    assert not parts[0] & parts[1]
    for batches in found:  # at most one batch more than there are pictures: almost every one once
        counts = Counter(itertools.chain(*batches))
        assert max(counts.values()) <= 2
        assert sum(counts.values()) == 10
    # Workers make batches in turn, each from its own shards; whatever the number of processes that read.
    pair = read(source, workers=2, seed=1, epoch=0, batches=5)
    parts = [shards_of(source, pair[role::2]) for role in (0, 1)]
    assert not parts[0] & parts[1]
    assert pair == read(source, workers=2, seed=1, epoch=0, batches=5)
    assert pair != read(source, workers=2, seed=1, epoch=1, batches=5)
    assert pair != read(source, workers=2, seed=2, epoch=0, batches=5)


@pytest.mark.parametrize(("workers", "skip"), [(0, 2), (0, 5), (2, 3), (2, 4), (2, 7)])
def test_an_epoch_goes_on_at_the_shards_where_it_was(
    source: Numbered, workers: int, skip: int
) -> None:
    options = {"seed": 3, "epoch": 2, "batches": 11}
    whole = read(source, workers, **options)
    rest = read(source, workers, **options, skip=skip)
    assert len(rest) == len(whole) - skip
    number = max(workers, 1)
    stream = ShardBatches(source, lambda _: torch.empty(0), 2, **options)
    for role in range(number):
        own = stream.shards(role, number)
        sizes = [source.starts[s + 1] - source.starts[s] for s in own]
        seen = 2 * len(range(role, skip, number)) % sum(sizes)
        done = next(k for k in range(len(own)) if seen < sum(sizes[: k + 1]))
        # Those that it had finished come last again, if at all.
        turns = rest[(role - skip) % number :: number]
        left = list(itertools.chain(*turns))[: sum(sizes[done:])]
        assert shards_of(source, [left]) <= set(own[done:])
        assert len(set(left)) == len(left)


def test_too_few_shards(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = write_shards(pictures / "train", tmp_path / "shards", 3)
    job = make_job(Path(pattern), tmp_path / "out", validation=str(pictures / "val"))
    said = "3 shards for 1 processes with 4 workers each: .*at least 4 shards"
    with pytest.raises(ValueError, match=said):
        train.run(replace(job, workers=4))
    source = train.ShardSource(pattern)
    shards.check_shards(source, 3, 0)
    with pytest.raises(ValueError, match="3 shards for 2 processes with 2 workers each"):
        shards.check_shards(source, 2, 2)


class StopError(RuntimeError):
    pass


class StopAt(train.Watch):
    def __init__(self, last: int) -> None:
        self.left, self.problems = last, list[str]()

    def step(self, pictures: int, loss: float | None) -> None:
        self.left -= 1
        if self.left == 0:
            raise StopError

    def problem(self, text: str) -> None:
        self.problems.append(text)


def test_a_training_on_shards(pictures: Path, tmp_path: Path) -> None:
    """It validates on shards too, is the same whenever it is repeated, and goes on after an interruption."""
    pattern = Path(write_shards(pictures / "train", tmp_path / "train", 4))
    validation = write_shards(pictures / "val", tmp_path / "val", 2)
    jobs = [make_job(pattern, tmp_path / name, validation=validation) for name in "abc"]
    first, again = (train.run(job) for job in jobs[:2])
    assert [row["train_loss"] for row in first.history] == [r["train_loss"] for r in again.history]
    assert [row["loss"] for row in first.history] == [row["loss"] for row in again.history]
    assert first.classes == CLASSES
    folder = replace(jobs[0], validation=str(pictures / "val"), output=tmp_path / "folder")
    assert train.run(folder).history[-1]["loss"] == pytest.approx(first.history[-1]["loss"])
    with pytest.raises(StopError):
        train.run(jobs[2], StopAt(3))
    resumed = train.run(replace(jobs[2], resume=True))
    assert [row["epoch"] for row in resumed.history] == [1, 2]
    # Held-out pictures are read one by one, and so are the others then.
    train.run(make_job(pattern, tmp_path / "held", holdout=5, epochs=1))


def test_unreadable_pictures_are_replaced(pictures: Path, tmp_path: Path) -> None:
    pattern = write_shards(pictures / "train", tmp_path / "shards", 2)
    broken = [("x", {"png": b"broken", "cls": b"red"})]
    write_shard(tmp_path / "shards" / "s-02.tar", broken)
    pattern = pattern.replace("01", "02")
    watch = StopAt(100)
    job = make_job(Path(pattern), tmp_path / "out", validation=str(pictures / "val"), epochs=1)
    job = replace(job, batch_size=11)  # all of them, in two steps
    train.run(job, watch)
    assert len(watch.problems) == 1
    assert "'s-02.tar/x': not a picture" in watch.problems[0]
    for path in sorted((tmp_path / "shards").iterdir()):
        write_shard(path, [(k, {"png": b"broken", "cls": k.encode()}) for k in CLASSES])
    bad = make_job(Path(pattern), tmp_path / "bad", validation=str(pictures / "val"), epochs=1)
    with pytest.raises(ValueError, match="none of the training pictures can be read"):
        train.run(bad)
