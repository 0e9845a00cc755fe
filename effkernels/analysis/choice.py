"""What can be said of a choice among the named models without running any: costs, limits, published accuracies.

:mod:`effkernels.choosing` measures those that the limits leave.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from effkernels.analysis.accuracy import Accuracy, published
from effkernels.analysis.cost import model_cost
from effkernels.analysis.memory import inference_memory
from effkernels.models.registry import get_config, list_models
from effkernels.models.scaling import check_count, check_number

Quantity = Literal["latency", "memory", "macs", "parameters"]
QUANTITIES: tuple[Quantity, ...] = ("latency", "memory", "macs", "parameters")

B_AND_LITE = ("efficientnet_b*", "efficientnet_lite*")
"""Patterns of the models among which is chosen by default."""


@dataclass(frozen=True)
class Limits:
    """The most that a network may need; None where there is no limit.

    Attributes:
        latency: seconds of one call with a whole batch.
        memory: bytes of a call with a whole batch, weights included, as :func:`~effkernels.scaling.inference_memory`
            estimates them for ``eager``, the execution that needs most.
        macs: multiply-accumulates for one image.
        parameters: trainable parameters, with a classifier of 1000 classes.

    Raises:
        ValueError: no limit at all, or one that is not above 0 or not finite.
        TypeError: a limit that is not a number.
    """

    latency: float | None = None
    memory: float | None = None
    macs: float | None = None
    parameters: float | None = None

    def __post_init__(self) -> None:
        given = self.given()
        if not given:
            raise ValueError(f"no limit given: pass {', '.join(QUANTITIES[:-1])} or parameters")
        for name, limit in given.items():
            if check_number(name, limit, minimum=0.0) == 0.0:
                raise ValueError(f"{name} must be above 0, got {limit!r}")

    def given(self) -> dict[Quantity, float]:
        """The limits that are not None."""
        every = {name: getattr(self, name) for name in QUANTITIES}
        return {name: limit for name, limit in every.items() if limit is not None}

    @property
    def axis(self) -> Quantity:
        """The first limit that is given: accuracy is weighed against this quantity."""
        return next(iter(self.given()))


@dataclass(frozen=True)
class Latency:
    """Seconds of one call: the median of all turns, and the quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Candidate:
    """One model at one size of images.

    Attributes:
        model: its name.
        resolution: side of the images in pixels.
        own: whether it is the size that the model was scaled for.
        macs: for one image.
        parameters: trainable ones.
        memory: bytes for the batch; see :class:`Limits`.
        moved: bytes of feature maps that are read and written for the batch; see
            :class:`~effkernels.scaling.ModelCost`.
        accuracy: published for this size, or None.
        latency: measured, or None where it was not.
        excluded: why the candidate is out of the question, or "".
        fits: whether it is within all limits.
        on_front: whether no other candidate has an accuracy at least as high for less; see :func:`mark_front`.
    """

    model: str
    resolution: int
    own: bool
    macs: int
    parameters: int
    memory: int
    moved: int = field(repr=False)
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    excluded: str = ""
    fits: bool = False
    on_front: bool = False

    @property
    def name(self) -> str:
        """Model and size in words."""
        return f"{self.model} at {self.resolution} pixels"

    def amount(self, quantity: Quantity) -> float | None:
        """What it needs of a quantity, in the units of :class:`Limits`; None for a latency not measured."""
        if quantity == "latency":
            return None if self.latency is None else self.latency.median
        return float(getattr(self, quantity))

    def costs_at_least(self, other: Candidate) -> bool:
        """Whether it computes as much as ``other``, holds as many parameters, and moves as many bytes."""
        return (
            self.macs >= other.macs
            and self.parameters >= other.parameters
            and self.moved >= other.moved
        )


def candidates(
    patterns: Sequence[str] = B_AND_LITE,
    *,
    batch_size: int = 1,
    dtype: torch.dtype | str = torch.float32,
    every_source: bool = False,
) -> list[Candidate]:
    """Each model at its own size, at those of the next smaller and larger model of its family, and at the sizes for
    which an accuracy is published; by rising MACs.

    Args:
        patterns: of models' names, as in a shell.
        batch_size: images of a call; memory depends on it.
        dtype: of weights and activations.
        every_source: see :func:`~effkernels.analysis.accuracy.published`.

    Raises:
        ValueError: a pattern that no model's name matches, or ``batch_size`` below 1.
    """
    check_count("batch_size", batch_size)
    names: list[str] = []
    for pattern in patterns:
        matched = fnmatch.filter(list_models(), pattern)
        if not matched:
            get_config(pattern)  # which says what is close
            raise ValueError(
                f"{pattern} has no published accuracy here to choose by: see effkernels.list_models()"
            )
        names += [name for name in matched if name not in names]
    if not names:
        raise ValueError("models must hold at least one name or pattern of names")
    found = []
    for name in names:
        accuracies = published(name, every_source=every_source)
        own = get_config(name).resolution
        for side in sorted({*_neighbours(name), own, *accuracies}):
            cost = model_cost(name, side, batch_size=batch_size, dtype=dtype)
            found.append(
                Candidate(
                    model=name,
                    resolution=side,
                    own=side == own,
                    macs=cost.macs // batch_size,
                    parameters=cost.params,
                    memory=inference_memory(cost).eager,
                    moved=cost.bytes_moved.level2,
                    accuracy=accuracies.get(side),
                )
            )
    return sorted(found, key=lambda one: one.macs)


def _neighbours(name: str) -> list[int]:
    """The sizes of the next smaller and the next larger model of the same family."""
    family = "efficientnet_lite*" if "lite" in name else "efficientnet_[!l]*"
    sizes = sorted({get_config(other).resolution for other in list_models(family)})
    own = get_config(name).resolution
    smaller, larger = [s for s in sizes if s < own], [s for s in sizes if s > own]
    return smaller[-1:] + larger[:1]


def exceeded(candidate: Candidate, limits: Limits) -> list[Quantity]:
    """The limits that a candidate is above, as far as that is known."""
    return [
        name
        for name, limit in limits.given().items()
        if (amount := candidate.amount(name)) is not None and amount > limit
    ]


def mark_front(rows: Iterable[Candidate], quantity: Quantity) -> set[tuple[str, int]]:
    """Model and size of the candidates on the Pareto front of published accuracy against a quantity.

    A candidate is on it if no other is at least as accurate and needs no more, with one of the two strictly better.
    Candidates without a published accuracy, or whose quantity was not measured, are not compared.
    """
    known = [
        (amount, -one.accuracy.top1, one.model, one.resolution)
        for one in rows
        if one.accuracy is not None and (amount := one.amount(quantity)) is not None
    ]
    front: set[tuple[str, int]] = set()
    best: tuple[float, float] | None = None
    for amount, loss, model, side in sorted(known):
        if best is None or loss < best[1] or (amount, loss) == best:
            best = (amount, loss)
            front.add((model, side))
    return front
