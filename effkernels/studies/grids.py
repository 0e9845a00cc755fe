"""Candidates of the grid search for alpha, beta and gamma: which triples double the cost of a base.

Source: Tan and Le 2019 (arXiv 1905.11946), section 3.3, step 1: phi is 1 and alpha * beta^2 * gamma^2 about 2.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from effkernels.analysis.memory import inference_memory
from effkernels.models.scaling import ALPHA, BETA, CONSTRAINT, GAMMA
from effkernels.studies.architecture import Architecture
from effkernels.studies.base import SMALL, Base
from effkernels.studies.latencies import latency

Constraint = Literal["nominal", "macs", "memory", "latency"]
TARGET = CONSTRAINT
"""Cost of a candidate over the base's."""
TOLERANCE = 0.1
"""Absolute, of that ratio."""

_LARGEST = {"alpha": 2.0, "beta": 1.5, "gamma": 2.0}


@dataclass(frozen=True, order=True)
class Triple:
    """Multipliers of depth, width and resolution per unit of phi.

    Raises:
        ValueError: one is below 1 or not finite.
    """

    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 1):
                raise ValueError(f"{name} must be finite and at least 1, got {value}")

    @property
    def nominal(self) -> float:
        """alpha * beta^2 * gamma^2."""
        return self.alpha * self.beta**2 * self.gamma**2

    def apply(self, base: Base = SMALL) -> Architecture:
        """A base scaled by it.

        Raises:
            ValueError: the resolution exceeds the pictures' own.
        """
        return base.scaled(depth=self.alpha, width=self.beta, resolution=self.gamma)

    def __str__(self) -> str:
        """Such as "1.2, 1.1, 1.15"."""
        return f"{self.alpha:g}, {self.beta:g}, {self.gamma:g}"


PAPER = Triple(ALPHA, BETA, GAMMA)


@dataclass(frozen=True)
class Candidate:
    """A network of the grid, and the triples that round to it.

    Attributes:
        triple: of those the one whose nominal product is nearest to the target.
        triples: all of them.
        architecture: the network.
        ratios: realised cost over the base's, by kind: macs and memory, latency where it was measured.
    """

    triple: Triple
    triples: tuple[Triple, ...]
    architecture: Architecture
    ratios: dict[str, float] = field(hash=False)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "triple": [self.triple.alpha, self.triple.beta, self.triple.gamma],
            "same_network": [str(triple) for triple in self.triples if triple != self.triple],
            "nominal": round(self.triple.nominal, 4),
            "ratios": {name: round(ratio, 4) for name, ratio in self.ratios.items()},
        }


def grid(step: float = 0.1, largest_gamma: float = SMALL.largest_factor) -> list[Triple]:
    """All triples from 1 on in steps: alpha to 2, beta to 1.5, gamma to 2 or as far as the pictures go.

    Raises:
        ValueError: the step is not from 0.01 to 1.
    """
    if not 0.01 <= step <= 1:
        raise ValueError(f"step must be from 0.01 to 1, got {step:g}")
    limits = {**_LARGEST, "gamma": min(_LARGEST["gamma"], largest_gamma)}
    values = [
        [round(1 + i * step, 6) for i in range(int((limits[name] - 1) / step + 1e-9) + 1)]
        for name in ("alpha", "beta", "gamma")
    ]
    return [Triple(*values) for values in itertools.product(*values)]


def candidates(
    triples: Iterable[Triple],
    constraint: Constraint = "nominal",
    *,
    target: float = TARGET,
    tolerance: float = TOLERANCE,
    base: Base = SMALL,
    measured: Callable[[Architecture], float] | None = None,
) -> list[Candidate]:
    """The networks of ``triples`` that keep a constraint, those nearest to the target first.

    Args:
        triples: to choose from.
        constraint: what must be ``target`` within ``tolerance``: the nominal product, or a realised ratio to the
            base: MACs of a picture, estimated memory of inference, or measured latency.
        target: at least 1.
        tolerance: above 0.
        base: what they scale.
        measured: seconds of a network, for ``latency``; by default :func:`latency`.

    Raises:
        ValueError: a value out of range, or no triple keeps the constraint; the message names the nearest.
    """
    if constraint not in get_args(Constraint):
        raise ValueError(
            f"constraint must be one of {', '.join(get_args(Constraint))}, got {constraint!r}"
        )
    if not (math.isfinite(target) and target >= 1):
        raise ValueError(
            f"target must be finite and at least 1, the base itself, got {target:g}: no triple "
            "makes a network smaller"
        )
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"tolerance must be above 0, got {tolerance:g}")
    if measured is None:
        measured = functools.partial(latency, base=base)
    by_network: dict[str, list[Triple]] = {}
    for triple in triples:
        if constraint == "nominal" and abs(triple.nominal - target) > tolerance + 1e-9:
            continue
        if base.side(triple.gamma) > base.largest:
            continue
        name = json.dumps(triple.apply(base).to_json())
        by_network.setdefault(name, []).append(triple)
    costs = _Ratios(base)
    found, nearest = [], (math.inf, "")
    for same in by_network.values():
        same.sort(key=lambda t: (abs(t.nominal - target), t))
        architecture = same[0].apply(base)
        ratios = costs.of(architecture)
        if constraint == "latency":
            ratios["latency"] = measured(architecture) / measured(base.network)
        value = same[0].nominal if constraint == "nominal" else ratios[constraint]
        nearest = min(nearest, (abs(value - target), f"{same[0]} with {value:.3f}"))
        if abs(value - target) <= tolerance + 1e-9:
            found.append(
                (abs(value - target), Candidate(same[0], tuple(same), architecture, ratios))
            )
    if not found:
        hint = f"the nearest is {nearest[1]}" if nearest[1] else "pass a finer step"
        raise ValueError(
            f"the grid is empty: no triple has a {constraint} ratio of {target:g} +- {tolerance:g}; {hint}"
        )
    return [candidate for _, candidate in sorted(found, key=lambda one: (one[0], one[1].triple))]


class _Ratios:
    def __init__(self, base: Base) -> None:
        self._from = base
        self._base = self._costs(base.network)

    def _costs(self, architecture: Architecture) -> dict[str, float]:
        cost = self._from.cost(architecture)
        return {"macs": cost.macs, "memory": inference_memory(cost).eager}

    def of(self, architecture: Architecture) -> dict[str, float]:
        return {name: cost / self._base[name] for name, cost in self._costs(architecture).items()}


def reference(triple: Triple, base: Base = SMALL) -> Candidate:
    """A candidate for comparison, whatever its cost: the paper's triple, for instance."""
    architecture = triple.apply(base)
    return Candidate(triple, (triple,), architecture, _Ratios(base).of(architecture))
