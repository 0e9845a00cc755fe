"""Labelled pictures in shards of webdataset: tar files that are read from front to back."""

from __future__ import annotations

import glob
import io
import json
import random
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from effkernels.data.pictures import PICTURE_SUFFIXES
from effkernels.preprocessing import read_image
from effkernels.train.extras import need
from effkernels.train.loading import Batch, Sample, Transform, collate, named
from effkernels.train.randomness import PICTURE, SHARDS, derive, seeded
from effkernels.train.sources import Source

if TYPE_CHECKING:
    from PIL import Image

_CLASSES = "classes.txt"
_BUFFER = 1000  # pictures among which the next one is drawn
_FIELDS = ("label", "cls", "class")  # of a .json, the first that is there


def is_shards(data: str) -> bool:
    """Whether ``data`` names tar files: ``train-{000..009}.tar``, ``shards/*.tar`` or one file."""
    return data.endswith(".tar")


def find_shards(data: str) -> list[Path]:
    """The files of a pattern with braces, as webdataset's, or with ``*``.

    Raises:
        ValueError: there are none, or one of them is missing or no local file.
        ImportError: webdataset is not installed.
    """
    lists = need("webdataset.shardlists", "--data with .tar shards")
    found: list[Path] = []
    for name in lists.expand_urls(data):
        if "://" in name or name.startswith("pipe:"):
            raise ValueError(f"shards must be local files, to which {name} has to be copied first")
        found += map(Path, sorted(glob.glob(name)) if glob.has_magic(name) else [name])
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise ValueError(
            f"no such shard: {missing[0]} ({len(missing)} of {len(found)} are missing)"
        )
    if not found:
        raise ValueError(f"no shards match {data}")
    return found


class _Entry(NamedTuple):
    """A picture in a shard: its name there, where its file's bytes are, and its label as stored."""

    key: str
    offset: int
    size: int
    label: int | str


class ShardSource(Source):
    """The pictures of shards, each with its label beside it.

    A sample is a picture (``.jpg``, ``.png`` ...) and a ``.cls`` with a number or name, or a ``.json`` with that or
    with an object that has it as ``label``, ``cls`` or ``class``. The names of classes are those lines of a
    ``classes.txt`` beside the shards; without it, numbers name themselves, and names are sorted.

    Training reads the shards from front to back, see :class:`ShardBatches`. Here pictures are read one by one, as
    validation does, and a training on part of them.

    Attributes:
        shards: the files.
        starts: the index of each one's first picture, and behind the last one the number of all.

    Raises:
        ValueError: a file is missing or damaged, has samples without a picture or a label, or there are fewer than
            two classes.
        ImportError: webdataset is not installed.
    """

    def __init__(self, data: str) -> None:
        self.shards = find_shards(data)
        self._entries: list[_Entry] = []
        self.starts = [0]
        for path in self.shards:
            self._entries += _entries(path)
            self.starts.append(len(self._entries))
        stored = [entry.label for entry in self._entries]
        self.classes = _classes(self.shards[0].parent / _CLASSES, stored, data)
        positions: dict[int | str, int] = {name: i for i, name in enumerate(self.classes)}
        positions |= {i: i for i in range(len(self.classes))}
        for entry in self._entries:
            if entry.label not in positions:
                raise ValueError(
                    f"{data}: {entry.key!r} has the label {entry.label!r}, which {_CLASSES} does not have"
                )
        self.labels = [positions[label] for label in stored]

    def key(self, index: int) -> str:
        """The picture's name in its shard, as webdataset gives it."""
        return self._entries[index].key

    def picture(self, index: int) -> Image.Image:
        """As :func:`effkernels.preprocessing.read_image` reads it: upright, RGB."""
        entry = self._entries[index]
        with self._shard(index).open("rb") as file:
            file.seek(entry.offset)
            return self.decode(index, file.read(entry.size))

    def decode(self, index: int, content: bytes) -> Image.Image:
        """Picture ``index`` from its file's bytes."""
        stream: Any = io.BytesIO(content)
        stream.name = self.name(index)  # for messages
        return read_image(stream)

    def _shard(self, index: int) -> Path:
        return next(p for p, end in zip(self.shards, self.starts[1:], strict=True) if index < end)

    def name(self, index: int) -> str:
        """The shard's name, without its folder, and the picture's."""
        return f"{self._shard(index).name}/{self._entries[index].key}"


def _entries(path: Path) -> Iterator[_Entry]:
    """The samples of a shard, grouped as webdataset groups them: neighbouring files of the same name."""
    split = need("webdataset.tariterators", "--data with .tar shards").base_plus_ext
    try:
        with tarfile.open(path, "r:") as tar:
            key, files = None, dict[str, tarfile.TarInfo]()
            for member in tar:
                prefix, suffix = split(member.name) if member.isreg() else (None, "")
                if prefix is None or member.name.startswith("__"):
                    continue
                if prefix != key:
                    if key is not None:
                        yield _entry(path, tar, key, files)
                    key, files = prefix, {}
                files[suffix.lower()] = member
            if key is not None:
                yield _entry(path, tar, key, files)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{path} is no tar file, or damaged: {error}") from None


def _entry(path: Path, tar: tarfile.TarFile, key: str, files: dict[str, tarfile.TarInfo]) -> _Entry:
    picture = next((files[name] for name in files if f".{name}" in PICTURE_SUFFIXES), None)
    if picture is None:
        raise ValueError(f"{path}: {key!r} has no picture, only .{' .'.join(files)}")
    return _Entry(key, picture.offset_data, picture.size, _label(path, tar, key, files))


def _label(path: Path, tar: tarfile.TarFile, key: str, files: dict[str, Any]) -> int | str:
    found: Any = None
    if "cls" in files:
        text = tar.extractfile(files["cls"]).read().decode(errors="replace").strip()  # type: ignore[union-attr]
        found = int(text) if text.isdecimal() else text or None
    elif "json" in files:
        try:
            found = json.loads(tar.extractfile(files["json"]).read())  # type: ignore[union-attr]
        except ValueError as error:
            raise ValueError(f"{path}: the .json of {key!r} is damaged: {error}") from None
        if isinstance(found, dict):
            found = next((found[field] for field in _FIELDS if field in found), None)
    if isinstance(found, bool) or not isinstance(found, (int, str)) or found in ("", -1):
        raise ValueError(
            f"{path}: {key!r} has no label: a .cls with a number or name, or a .json with 'label'"
        )
    return found


def _classes(path: Path, labels: Sequence[int | str], data: str) -> tuple[str, ...]:
    if path.is_file():
        classes = tuple(
            line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()
        )
    elif all(isinstance(label, int) and label >= 0 for label in labels):
        classes = tuple(
            str(i) for i in range(1 + max((int(label) for label in labels), default=-1))
        )
    elif all(isinstance(label, str) for label in labels):
        classes = tuple(sorted({str(label) for label in labels}))
    else:
        raise ValueError(f"{data}: labels must be numbers from 0 on, or all of them names")
    if len(classes) < 2:
        raise ValueError(f"{data} must have pictures of at least two classes; found {len(classes)}")
    return classes


def check_shards(source: ShardSource, world: int, workers: int) -> None:
    """Every process, and every one that reads for it, needs a shard of its own.

    Raises:
        ValueError: there are fewer.
    """
    wanted = world * max(workers, 1)
    if len(source.shards) < wanted:
        raise ValueError(
            f"{len(source.shards)} shards for {world} processes with {max(workers, 1)} workers each: pass a smaller "
            f"--workers, or make at least {wanted} shards"
        )


class ShardBatches(IterableDataset[Batch]):
    """The batches of one epoch for one of ``world`` processes, from batch ``skip`` on.

    The shards, shuffled anew for each epoch, are dealt out to the processes, and those of a process to its
    ``workers``, which make batches in turn. A worker reads its shards from front to back, from the first one again
    if they have fewer pictures than the epoch asks of it, and draws from a buffer. So an epoch has as many batches
    in each process, and with shards of unequal size not every picture exactly once.

    An epoch that goes on begins with the shards in which the workers were, at the front of each.

    Args:
        source: the shards.
        transform: from a Pillow image, RGB, to a (3, H, W) tensor.
        batch_size: pictures of each batch; unreadable ones are replaced by those that follow.
        batches: of the whole epoch, in this process.
        seed, epoch: of the order and the transform's random numbers.
        rank, world: this process, and how many there are.
        skip: batches that are done.
    """

    def __init__(
        self,
        source: ShardSource,
        transform: Transform,
        batch_size: int,
        batches: int,
        *,
        seed: int,
        epoch: int,
        rank: int = 0,
        world: int = 1,
        skip: int = 0,
    ) -> None:
        self.source, self.transform, self.batch_size = source, transform, batch_size
        self.batches, self.seed, self.epoch = batches, seed, epoch
        self.rank, self.world, self.skip = rank, world, skip

    def shards(self, role: int, workers: int) -> list[int]:
        """The shards of one worker's role, in the order in which it reads them."""
        order = list(range(len(self.source.shards)))
        random.Random(derive(self.seed, SHARDS, self.epoch)).shuffle(order)
        return order[self.rank + self.world * role :: self.world * workers]

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        number, workers = (0, 1) if info is None else (info.id, info.num_workers)
        # Batch b is made in role b % workers; the loader asks worker 0 first, wherever the epoch goes on.
        role = (number + self.skip) % workers
        made, wanted = (len(range(role, end, workers)) for end in (self.skip, self.batches))
        samples = self._samples(role, workers, made * self.batch_size)
        for _ in range(made, wanted):
            batch: list[Sample] = []
            while sum(sample.image is not None for sample in batch) < self.batch_size:
                batch.append(next(samples))
                if len(batch) >= self.batch_size + len(self.source):
                    break  # none can be read
            yield collate(batch)

    def _samples(self, role: int, workers: int, seen: int) -> Iterator[Sample]:
        """Without end, from the shard in which picture ``seen`` of this role is."""
        shards = self.shards(role, workers)
        starts = self.source.starts
        sizes = [starts[shard + 1] - starts[shard] for shard in shards]
        if not any(sizes):
            raise ValueError(f"{self.source.shards[shards[0]]} holds no pictures")
        place, seen = 0, seen % sum(sizes)
        while seen >= sizes[place]:
            seen -= sizes[place]
            place += 1
        order = random.Random(derive(self.seed, SHARDS, self.epoch, self.rank, role))
        filters = need("webdataset.filters", "--data with .tar shards")
        shuffle = filters.shuffle(_BUFFER, rng=order)
        while True:  # the buffer is emptied after each pass, in which a picture comes once
            for index, content in shuffle(self._read(shards[place:])):
                yield self._sample(index, content)
            place = 0

    def _sample(self, index: int, content: bytes) -> Sample:
        try:
            picture = self.source.decode(index, content)
            with seeded(derive(self.seed, PICTURE, self.epoch, index)):
                return Sample(self.transform(picture), self.source.labels[index])
        except ValueError as error:
            return Sample(None, -1, (named(str(error), self.source.name(index)),))

    def _read(self, shards: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Indices of pictures, and their files' bytes."""
        library = need("webdataset.tariterators", "--data with .tar shards")
        for shard in shards:
            path, first = self.source.shards[shard], self.source.starts[shard]
            with path.open("rb") as stream:
                files = library.tar_file_expander([{"url": str(path), "stream": stream}])
                for index, sample in enumerate(library.group_by_keys(files), first):
                    if index >= len(self.source) or sample["__key__"] != self.source.key(index):
                        raise ValueError(f"{path} is not what it was when the training began")
                    yield index, next(sample[n] for n in sample if f".{n}" in PICTURE_SUFFIXES)


def shard_loader(batches: ShardBatches, workers: int, device: torch.device) -> DataLoader[Batch]:
    """Reads in ``workers`` processes (0: in this one), into pinned memory where the device is a GPU."""
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # as in loader()
    )
