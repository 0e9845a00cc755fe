"""From what the user names to the pictures to train on and the pictures to validate with."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from effkernels.train.hugging_face import HuggingFaceSource, is_hugging_face
from effkernels.train.randomness import SPLIT, SUBSET, derive
from effkernels.train.shards import ShardSource, is_shards
from effkernels.train.sources import FolderSource, Source, Subset, fashion_mnist, is_fashion_mnist

_TRAIN = ("train", "training")
_VALIDATION = ("val", "valid", "validation", "test")
_PASS = "pass --validation or --holdout 0.1"


@dataclass(frozen=True)
class Data:
    """Pictures to train on, and to validate with, of the same classes."""

    train: Source
    validation: Source

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the classifier's outputs."""
        return self.train.classes


def open_data(
    data: str,
    validation: str | None = None,
    holdout: float | None = None,
    seed: int = 0,
    subset: float | None = None,
) -> Data:
    """Find the pictures.

    Args:
        data: ``fashion-mnist`` (or ``fashion-mnist:FOLDER``); ``datasets:PLACE``, see :class:`HuggingFaceSource`;
            shards such as ``train-{000..099}.tar``, see :class:`ShardSource`; or a folder of classes, or one with such
            folders in ``train`` and ``val`` (``valid``, ``validation``, ``test``).
        validation: another folder of classes, or shards; by default the folder beside ``train``.
        holdout: in place of that, part of the training pictures, of every class alike: a share below 1, or
            a number of pictures.
        seed: of the choice of these, and of ``subset``.
        subset: train on so many of the pictures only, of every class alike: a share below 1, or a number.

    Raises:
        ValueError: something is missing, empty, or of other classes; a share or number is out of range; or both
            ``validation`` and ``holdout`` are given.
    """
    if validation is not None and holdout is not None:
        raise ValueError("pass either --validation or --holdout: both name validation pictures")
    found: Callable[[], Source] = functools.partial(open_validation, data)
    if is_fashion_mnist(data):
        train: Source = fashion_mnist(data, "train")
    elif is_hugging_face(data):
        train = HuggingFaceSource(data, training=True)
    elif is_shards(data):
        train = ShardSource(data)
        if validation is None and holdout is None:
            raise ValueError(f"no validation pictures beside shards: {_PASS}")
    else:
        folder = Path(data)
        inner = _first(folder, _TRAIN)
        train = FolderSource(inner or folder)
        beside = _first(folder, _VALIDATION) if inner else None
        found = functools.partial(_beside, folder, beside)
    if holdout is not None:
        opened = hold_out(train, holdout, seed)
    else:
        source = found() if validation is None else open_validation(validation)
        _check_classes(train, source)
        opened = Data(train, source)
    if subset is None:
        return opened
    chosen, _ = choose(opened.train, subset, derive(seed, SUBSET), "--subset")
    check_every_class(opened.train, chosen, f"--subset {subset:g} has")
    return Data(Subset(opened.train, chosen), opened.validation)


def open_validation(data: str) -> Source:
    """Pictures to validate or evaluate with: a folder of classes, or the test part of a data set."""
    if is_fashion_mnist(data):
        return fashion_mnist(data, "test")
    if is_hugging_face(data):
        return HuggingFaceSource(data, training=False)
    if is_shards(data):
        return ShardSource(data)
    return FolderSource(Path(data))


def _beside(folder: Path, validation: Path | None) -> Source:
    if validation is None:
        raise ValueError(
            f"no validation pictures: {folder} has no folders 'train' and 'val'; {_PASS}"
        )
    return FolderSource(validation)


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _check_classes(train: Source, validation: Source) -> None:
    if train.classes == validation.classes:
        return
    only = [
        f"only {where} has {', '.join(sorted(names)[:5])}{' ...' if len(names) > 5 else ''}"
        for where, names in (
            ("training", set(train.classes) - set(validation.classes)),
            ("validation", set(validation.classes) - set(train.classes)),
        )
        if names
    ]
    raise ValueError(f"training and validation have other classes: {'; '.join(only)}")


def hold_out(source: Source, holdout: float, seed: int) -> Data:
    """Split ``source``: of every class the same share, chosen by ``seed``, is for validation.

    Raises:
        ValueError: as :func:`choose`; or a class would have no pictures left to train on.
    """
    held, kept = choose(source, holdout, derive(seed, SPLIT), "--holdout")
    check_every_class(source, kept, f"--holdout {holdout:g} leaves")
    return Data(Subset(source, kept), Subset(source, held))


def check_every_class(source: Source, indices: Sequence[int], cause: str) -> None:
    """Raises ValueError if a class has no picture among those of ``indices``; the message begins with ``cause``."""
    left = {source.labels[index] for index in indices}
    for label, name in enumerate(source.classes):
        if label not in left:
            raise ValueError(f"{cause} no picture of class {name!r} to train on")


def choose(source: Source, share: float, seed: int, name: str) -> tuple[list[int], list[int]]:
    """Indices of some of the pictures, of every class the same share, and those of the others; both in order.

    Args:
        source: the pictures.
        share: below 1, or their number.
        seed: of the choice.
        name: the option that gives ``share``, for messages.

    Raises:
        ValueError: no number between 0 and that of the pictures.
    """
    count = share * len(source) if 0 < share < 1 else share
    if not (math.isfinite(count) and 1 <= count < len(source)):
        raise ValueError(
            f"{name} must be a share below 1 or a number of pictures below {len(source)}, with at least one "
            f"picture; got {share:g}"
        )
    labels = torch.tensor(source.labels)
    chosen: list[int] = []
    generator = torch.Generator().manual_seed(seed)
    seen = 0
    for label in range(len(source.classes)):
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        seen += len(members)
        # The shares add up to the whole.
        chosen += members[: round(count * seen / len(source)) - len(chosen)].tolist()
    out = set(chosen)
    return sorted(chosen), [index for index in range(len(source)) if index not in out]
