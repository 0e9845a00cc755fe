"""Search spaces as data: decisions, what they may be, and the network that they make.

Source: Tan et al. 2019, "MnasNet" (arXiv 1807.11626), section 4: the space in which B0 was found. Each stage
chooses an operator, a kernel, squeeze-excitation, an expansion, a skip, and steps of filters and layers around those of
a base; its blocks are alike.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, get_args

from effkernels.models import StageConfig
from effkernels.models.scaling import round_filters
from effkernels.studies.architecture import SMALL_STAGES, Architecture, small_config

Field = Literal["operator", "kernel_size", "se_ratio", "expand_ratio", "skip", "filters", "layers"]
Choice = tuple[int, ...]
"""For each decision the index of one of its options."""

_OPERATORS = ("conv", "sepconv", "mbconv")
_DIVISOR = 2


@dataclass(frozen=True)
class Decision:
    """One decision, for one stage or for several alike.

    Args:
        field: ``operator`` (``conv``, ``sepconv`` or ``mbconv``), ``kernel_size``, ``se_ratio``, ``expand_ratio``
            (of mbconv; the other operators do not expand), ``skip`` (whether blocks add their input where shapes
            allow), ``filters`` (a multiplier of the base's channels) or ``layers`` (added to the base's, at least 1
            stays).
        stages: that it decides for.
        options: what it may be; at least two.

    Raises:
        ValueError: an unknown field or operator, no stages, or fewer than two options.
    """

    field: Field
    stages: tuple[int, ...]
    options: tuple[Any, ...]

    def __post_init__(self) -> None:
        if self.field not in get_args(Field):
            raise ValueError(
                f"field must be one of {', '.join(get_args(Field))}, got {self.field!r}"
            )
        if not self.stages:
            raise ValueError(f"the decision {self.field!r} must be for at least one stage")
        if len(set(self.options)) < 2 or len(set(self.options)) < len(self.options):
            raise ValueError(
                f"the decision {self.field!r} must have two or more different options, got {self.options}"
            )
        if self.field == "operator" and not set(self.options) <= set(_OPERATORS):
            raise ValueError(
                f"operators must be of {', '.join(_OPERATORS)}, got {', '.join(map(str, self.options))}"
            )


@dataclass(frozen=True)
class SearchSpace:
    """All networks that some decisions make of a base.

    Args:
        decisions: no two of one field for one stage.
        stages: the base; what nothing decides stays as it is there.

    Raises:
        ValueError: no decisions, a stage that is not there, or one that is decided twice.
    """

    decisions: tuple[Decision, ...]
    stages: tuple[StageConfig, ...] = SMALL_STAGES

    def __post_init__(self) -> None:
        if not self.decisions:
            raise ValueError("decisions must hold at least one decision")
        places = [(d.field, stage) for d in self.decisions for stage in d.stages]
        for field, stage in places:
            if not 0 <= stage < len(self.stages):
                raise ValueError(
                    f"stages of {field!r} must be 0 to {len(self.stages) - 1}, got {stage}"
                )
        if len(set(places)) < len(places):
            raise ValueError("a field of a stage is decided twice")

    @property
    def size(self) -> int:
        """Number of choices. Some may make the same network: see :meth:`architecture`."""
        return math.prod(len(decision.options) for decision in self.decisions)

    def __iter__(self) -> Iterator[Choice]:
        """All choices, in order."""
        return itertools.product(*(range(len(decision.options)) for decision in self.decisions))

    def random(self, random: Random) -> Choice:
        """A choice, all alike probable."""
        return tuple(random.randrange(len(decision.options)) for decision in self.decisions)

    def mutate(self, choice: Choice, random: Random) -> Choice:
        """``choice`` with one decision changed."""
        place = random.randrange(len(choice))
        other = random.randrange(len(self.decisions[place].options) - 1)
        return (*choice[:place], other + (other >= choice[place]), *choice[place + 1 :])

    def crossed(self, one: Choice, other: Choice, random: Random) -> Choice:
        """Each decision from one of two choices."""
        return tuple(random.choice(pair) for pair in zip(one, other, strict=True))

    def architecture(self, choice: Choice) -> Architecture:
        """The network of a choice, canonical: choices that make the same one give equal results.

        They do where an operator does not expand, or no block of a stage could add its input.
        """
        made: list[dict[str, Any]] = [{} for _ in self.stages]
        for decision, index in zip(self.decisions, choice, strict=True):
            for stage in decision.stages:
                made[stage][decision.field] = decision.options[index]
        stages = tuple(_stage(row, wants) for row, wants in zip(self.stages, made, strict=True))
        without = tuple(s for s, wants in enumerate(made) if not wants.get("skip", True))
        return Architecture(small_config(stages), without).canonical()

    def describe(self, choice: Choice) -> dict[str, Any]:
        """A choice in words: ``{"operator of stage 0": "conv", ...}``."""
        return {
            f"{d.field} of stage {', '.join(map(str, d.stages))}": d.options[index]
            for d, index in zip(self.decisions, choice, strict=True)
        }


def _stage(base: StageConfig, wants: dict[str, Any]) -> StageConfig:
    row = replace(
        base,
        kernel_size=wants.get("kernel_size", base.kernel_size),
        se_ratio=wants.get("se_ratio", base.se_ratio),
        out_channels=round_filters(base.out_channels, wants.get("filters", 1.0), _DIVISOR),
        repeats=max(1, base.repeats + wants.get("layers", 0)),
        expand_ratio=wants.get("expand_ratio", base.expand_ratio),
    )
    operator = wants.get("operator", "mbconv")
    if operator == "conv":
        return replace(row, block="fused_mbconv", expand_ratio=1)
    return replace(row, expand_ratio=1) if operator == "sepconv" else row


def _mnas(stage: int) -> tuple[Decision, ...]:
    return (
        Decision("operator", (stage,), _OPERATORS),
        Decision("kernel_size", (stage,), (3, 5)),
        Decision("se_ratio", (stage,), (0.0, 0.25)),
        Decision("expand_ratio", (stage,), (1, 4, 6)),
        Decision("skip", (stage,), (False, True)),
        Decision("filters", (stage,), (0.75, 1.0, 1.25)),
        Decision("layers", (stage,), (-1, 0, 1)),
    )


MNAS = SearchSpace(sum((_mnas(stage) for stage in range(len(SMALL_STAGES))), ()))
"""MNAS's space around the small base, each stage by itself. Left out: skipping by pooling, which MBConv has not."""

TABLED = SearchSpace(
    (
        Decision("operator", (0,), ("conv", "sepconv")),
        Decision("kernel_size", (1, 2), (3, 5)),
        Decision("se_ratio", (0, 1, 2), (0.0, 0.25)),
        Decision("expand_ratio", (1, 2), (1, 4, 6)),
        Decision("skip", (0, 1, 2), (False, True)),
        Decision("filters", (0, 1, 2), (0.75, 1.0, 1.25)),
        Decision("layers", (1, 2), (-1, 0)),
    )
)
"""A part of it that is small enough to train all of: 288 choices, 216 networks. Every kind of decision is in it."""
