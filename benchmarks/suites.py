"""Which cases are measured with which contestants: the rows of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import contestants
from benchmarks.alternate import Timing
from benchmarks.cases import Case, NetworkCase, depthwise, network, pointwise
from benchmarks.contestants import Contestant
from effkernels.models import CONFIGS

B0, B4, B5, LITE0 = (f"efficientnet_{name}" for name in ("b0", "b4", "b5", "lite0"))
GROWING_BATCH = (1, 2, 4, 8, 16, 32, 64)
LARGEST_RESOLUTION = 600

_NETWORK = Timing(turn=0.1, budget=12.0)
_LAYER = Timing(turn=0.02, budget=1.2, settle=0.005, min_rounds=9)
_GROWTH = Timing(turn=0.1, budget=3.0, max_rounds=15)


@dataclass(frozen=True)
class Suite:
    """Cases of one kind and who computes them. ``metric``: "time", or "memory" of fresh processes."""

    name: str
    heading: str
    cases: tuple[Case, ...]
    contestants: tuple[Contestant, ...]
    timing: Timing
    metric: str = "time"


def suites(*, full: bool = False, growth: bool = False) -> list[Suite]:
    """The default matrix; with ``growth`` the cost as work grows, with ``full`` everything."""
    chosen = [
        Suite("networks", "Networks", _networks(full), _who(contestants.NETWORKS, full), _NETWORK),
        Suite(
            "depthwise",
            "Depthwise convolutions",
            tuple(depthwise([B0, B4])),
            contestants.DEPTHWISE,
            _LAYER,
        ),
        Suite(
            "pointwise",
            "1x1 convolutions",
            tuple(pointwise([B0, B4] if full else [B0])),
            contestants.POINTWISE,
            _LAYER,
        ),
        Suite(
            "memory", "Peak memory", (network(B5),), contestants.MEMORY, _NETWORK, metric="memory"
        ),
    ]
    if growth or full:
        chosen += [
            _growth(
                "batch", "B0 as the batch grows", [network(B0, batch=n) for n in GROWING_BATCH]
            ),
            _growth(
                "resolution",
                "B0 as the resolution grows",
                [network(B0, resolution=side) for side in growing_resolutions()],
            ),
        ]
    return chosen


def growing_resolutions() -> list[int]:
    """Those of the named models up to B7's, and smaller ones down to 128."""
    named = {config.resolution for config in CONFIGS.values()}
    return sorted({128, 160, 192} | {side for side in named if side <= LARGEST_RESOLUTION})


def _networks(full: bool) -> tuple[NetworkCase, ...]:
    cases = (network(B0), network(B4), network(LITE0), network(B0, batch=16))
    return (*cases, network(B4, batch=16)) if full else cases


def _who(everyone: Sequence[Contestant], full: bool) -> tuple[Contestant, ...]:
    return tuple(contestant for contestant in everyone if full or not contestant.full)


def _growth(name: str, heading: str, cases: Sequence[NetworkCase]) -> Suite:
    return Suite(name, heading, tuple(cases), contestants.GROWTH, _GROWTH)
