"""From what the user names to the pictures to train on and the pictures to validate with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from effkernels.train.hugging_face import HuggingFaceSource, is_hugging_face
from effkernels.train.randomness import SPLIT, derive
from effkernels.train.sources import FolderSource, Source, Subset, fashion_mnist, is_fashion_mnist

_TRAIN = ("train", "training")
_VALIDATION = ("val", "valid", "validation", "test")


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
    data: str, validation: str | None = None, holdout: float | None = None, seed: int = 0
) -> Data:
    """Find the pictures.

    Args:
        data: ``fashion-mnist`` (or ``fashion-mnist:FOLDER``); ``datasets:PLACE``, see :class:`HuggingFaceSource`; or a
            folder of classes, or one with such folders
            in ``train`` and ``val`` (``valid``, ``validation``, ``test``).
        validation: another folder of classes; by default the one beside ``train``.
        holdout: in place of that, part of the training pictures, of every class alike: a share below 1, or
            a number of pictures.
        seed: of the choice of these.

    Raises:
        ValueError: something is missing, empty, or of other classes; or both ``validation`` and ``holdout``.
    """
    if validation is not None and holdout is not None:
        raise ValueError("pass either --validation or --holdout: both name validation pictures")
    found: Callable[[], Source]
    if is_fashion_mnist(data):
        train: Source = fashion_mnist(data, "train")
        found = lambda: fashion_mnist(data, "test")  # noqa: E731
    elif is_hugging_face(data):
        train = HuggingFaceSource(data, training=True)
        found = lambda: HuggingFaceSource(data, training=False)  # noqa: E731
    else:
        folder = Path(data)
        inner = _first(folder, _TRAIN)
        train = FolderSource(inner or folder)
        beside = _first(folder, _VALIDATION) if inner else None
        found = lambda: _beside(folder, beside)  # noqa: E731
    if holdout is not None:
        return hold_out(train, holdout, seed)
    source = found() if validation is None else open_validation(validation)
    _check_classes(train, source)
    return Data(train, source)


def open_validation(data: str) -> Source:
    """Pictures to validate or evaluate with: a folder of classes, or the test part of a data set."""
    if is_fashion_mnist(data):
        return fashion_mnist(data, "test")
    if is_hugging_face(data):
        return HuggingFaceSource(data, training=False)
    return FolderSource(Path(data))


def _beside(folder: Path, validation: Path | None) -> Source:
    if validation is None:
        raise ValueError(
            f"no validation pictures: {folder} has no folders 'train' and 'val'; pass --validation FOLDER "
            f"or --holdout 0.1"
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
        ValueError: no number between 0 and that of the pictures; or a class would have no pictures left to
            train on.
    """
    count = holdout * len(source) if 0 < holdout < 1 else holdout
    if not (math.isfinite(count) and 1 <= count < len(source)):
        raise ValueError(
            f"--holdout must be a share below 1 or a number of pictures below {len(source)}, with at least one "
            f"picture; got {holdout:g}"
        )
    labels = torch.tensor(source.labels)
    held: list[int] = []
    generator = torch.Generator().manual_seed(derive(seed, SPLIT))
    taken, seen = 0, 0
    for label, name in enumerate(source.classes):
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        seen += len(members)
        share = round(count * seen / len(source)) - taken  # the shares add up to the whole
        if share >= len(members):
            raise ValueError(
                f"--holdout {holdout:g} leaves no picture of class {name!r} to train on"
            )
        held += members[:share].tolist()
        taken += share
    out = set(held)
    kept = [index for index in range(len(source)) if index not in out]
    return Data(Subset(source, kept), Subset(source, sorted(held)))
