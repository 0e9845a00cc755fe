"""From a source to batches: which pictures a process takes, in which order, and what happens to unreadable ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from effkernels.train.randomness import PICTURE, derive, seeded
from effkernels.train.sources import Source

if TYPE_CHECKING:
    from PIL import Image

Transform = Callable[["Image.Image"], Tensor]
Key = tuple[int, int]
"""Epoch and index of a picture."""


@dataclass(frozen=True)
class Sample:
    """A picture as the model takes it, (3, H, W), and its class; None in place of one that cannot be read.

    ``problems`` says why pictures could not be read.
    """

    image: Tensor | None
    label: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Images (N, 3, H, W), labels (N,), and why others could not be read."""

    images: Tensor
    labels: Tensor
    problems: tuple[str, ...]

    def pin_memory(self) -> Batch:
        """What the loader calls for GPUs: copies of pinned memory run beside the computation."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.problems)


class Pictures(Dataset[Sample]):
    """The transformed pictures of a source, by epoch and index.

    All random numbers of a picture follow from ``seed``, epoch and index, whichever process reads it.

    Args:
        source: where they come from.
        transform: from a Pillow image, RGB, to a (3, H, W) tensor.
        seed: of the transform's random numbers.
        replace: take the next readable picture in the place of an unreadable one, so that every batch is full;
            without it the batch is smaller.
    """

    def __init__(self, source: Source, transform: Transform, seed: int, *, replace: bool) -> None:
        self.source, self.transform, self.seed, self.replace = source, transform, seed, replace

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        problems: list[str] = []
        for offset in range(len(self) if self.replace else 1):
            at = (index + offset) % len(self)
            try:
                picture = self.source.picture(at)
                with seeded(derive(self.seed, PICTURE, epoch, index)):
                    return Sample(self.transform(picture), self.source.labels[at], tuple(problems))
            except ValueError as error:
                problems.append(named(str(error), self.source.name(at)))
        return Sample(None, -1, tuple(problems))


def named(message: str, name: str) -> str:
    """An error's message, with the picture's name if it lacks that."""
    return message if name in message else f"{name}: {message}"


def collate(samples: list[Sample]) -> Batch:
    """One batch of those samples that have an image."""
    images = [sample.image for sample in samples if sample.image is not None]
    labels = [sample.label for sample in samples if sample.image is not None]
    problems = tuple(problem for sample in samples for problem in sample.problems)
    stacked = torch.stack(images) if images else torch.empty(0)
    return Batch(stacked, torch.tensor(labels, dtype=torch.long), problems)


class TrainingBatches(Sampler[list[Key]]):
    """Batches of one epoch for one of ``world`` processes, from batch ``skip`` on.

    Batch b of all processes together are the pictures that one process with a batch ``world`` times as large
    takes as its batch b. Pictures that fill no batch are left out of this epoch.

    Raises:
        ValueError: there are fewer pictures than one batch of all processes takes.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        rank: int = 0,
        world: int = 1,
        skip: int = 0,
    ) -> None:
        if len(source) < batch_size * world:
            processes = f" in each of {world} processes" if world > 1 else ""
            raise ValueError(
                f"{len(source)} training pictures do not fill one batch of {batch_size}{processes}: pass a "
                f"smaller --batch-size"
            )
        self.batch_size, self.epoch, self.skip = batch_size, epoch, skip
        indices: Any = range(len(source))  # all that it asks for is a length
        self.order: DistributedSampler[int] = DistributedSampler(
            indices,
            num_replicas=world,
            rank=rank,
            shuffle=True,
            seed=seed % 2**32,
            drop_last=True,
        )
        self.order.set_epoch(epoch)

    @property
    def total(self) -> int:
        """Batches of the whole epoch."""
        return len(self.order) // self.batch_size

    def __len__(self) -> int:
        return max(self.total - self.skip, 0)

    def __iter__(self) -> Iterator[list[Key]]:
        order = list(self.order)
        for batch in range(self.skip, self.total):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, index) for index in chosen]


class ValidationBatches(Sampler[list[Key]]):
    """Every picture once, in order; of ``world`` processes each takes every ``world``-th one."""

    def __init__(self, source: Source, batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        self.indices = range(rank, len(source), world)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield [(0, index) for index in self.indices[start : start + self.batch_size]]


def loader(
    pictures: Pictures, batches: Sampler[list[Key]], workers: int, device: torch.device
) -> DataLoader[Batch]:
    """Reads ``batches`` in ``workers`` processes (0: in this one), into pinned memory where the device is a GPU."""
    by_key: Any = pictures  # its keys are pairs, not the numbers that the loader's annotations want
    return DataLoader(
        by_key,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        # A loader draws a seed for its workers, which nothing here uses: not from the numbers of the training.
        generator=torch.Generator(),
    )
