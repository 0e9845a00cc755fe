"""The paper's Tables 5, 6 and 8 as data: transfer learning, its data sets, and accuracy on ImageNet's two splits.

Source: Tan and Le 2019 (arXiv 1905.11946v5). Accuracies are top-1 in percent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class DataSet:
    """One row of Table 6: pictures to train on, pictures to test with, classes."""

    name: str
    train: int
    test: int
    classes: int


@dataclass(frozen=True)
class Transferred:
    """One comparison of Table 5: an EfficientNet, and the best other accuracy on the same data set.

    ``compared`` says with what: the best ``public`` model, or the best that was ``reported``.
    """

    data_set: str
    compared: Literal["public", "reported"]
    model: str
    accuracy: float
    other_accuracy: float


TABLE_6: Mapping[str, DataSet] = MappingProxyType(
    {
        name: DataSet(name, train, test, classes)
        for name, train, test, classes in (
            ("CIFAR-10", 50_000, 10_000, 10),
            ("CIFAR-100", 50_000, 10_000, 100),
            ("Birdsnap", 47_386, 2_443, 500),
            ("Stanford Cars", 8_144, 8_041, 196),
            ("Flowers", 2_040, 6_149, 102),
            ("FGVC Aircraft", 6_667, 3_333, 100),
            ("Oxford-IIIT Pets", 3_680, 3_369, 37),
            ("Food-101", 75_750, 25_250, 101),
        )
    }
)
"""Data sets by name."""

# Data set; model, its accuracy and the other one's: of the public comparison, then of the reported one.
_ROWS = (
    ("CIFAR-10", ("b0", 98.1, 98.0), ("b7", 98.9, 99.0)),
    ("CIFAR-100", ("b0", 88.1, 87.5), ("b7", 91.7, 91.3)),
    ("Birdsnap", ("b5", 82.0, 81.8), ("b7", 84.3, 83.6)),
    ("Stanford Cars", ("b3", 93.6, 93.4), ("b7", 94.7, 94.8)),
    ("Flowers", ("b5", 98.5, 98.5), ("b7", 98.8, 97.7)),
    ("FGVC Aircraft", ("b3", 90.7, 90.9), ("b7", 92.9, 92.9)),
    ("Oxford-IIIT Pets", ("b4", 94.8, 94.5), ("b6", 95.4, 95.9)),
    ("Food-101", ("b4", 91.5, 90.8), ("b7", 93.0, 93.0)),
)


def _row(
    data_set: str, compared: Literal["public", "reported"], row: tuple[str, float, float]
) -> Transferred:
    size, accuracy, other = row
    return Transferred(data_set, compared, f"efficientnet_{size}", accuracy, other)


TABLE_5: tuple[Transferred, ...] = tuple(
    made
    for data_set, public, reported in _ROWS
    for made in (_row(data_set, "public", public), _row(data_set, "reported", reported))
)
"""Both comparisons of each data set."""

TABLE_8: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "efficientnet_b0": (77.11, 77.23),
        "efficientnet_b1": (79.13, 79.17),
        "efficientnet_b2": (80.07, 80.16),
        "efficientnet_b3": (81.59, 81.72),
        "efficientnet_b4": (82.89, 82.94),
        "efficientnet_b5": (83.60, 83.69),
        "efficientnet_b6": (83.95, 84.04),
        "efficientnet_b7": (84.26, 84.33),
    }
)
"""ImageNet's validation and test accuracy of each model."""
