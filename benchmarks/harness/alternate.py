"""The harness: contestants take turns, round after round, and are compared within each round.

One contestant is awake at a time. What slows the machine for all of them (frequency, neighbours, a library with
two speeds) cancels out of the ratio of two turns of one round; medians over rounds remove the rest. Between turns
a fixed piece of work measures how fast the machine is; the slower half of the rounds is not counted.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class EntrantError(Exception):
    """A contestant cannot go on; the message is the reason."""


class Entrant(Protocol):
    """One contestant, ready to compute its case."""

    @property
    def name(self) -> str:
        """Of the contestant."""

    def measure(self, warm: int, timed: int) -> list[float]:
        """Run ``warm`` times unmeasured, then ``timed`` times; returns seconds of each. Raises
        :class:`EntrantError`.
        """

    def cpu_seconds(self) -> float:
        """Processor time it has used so far, asleep or awake; 0 if it shares its process."""


@dataclass(frozen=True)
class Timing:
    """How long measurements take.

    A turn lasts about ``turn`` seconds, and a case about ``budget``, but at least ``min_rounds`` rounds
    and at most ``max_rounds``. Before each turn everything rests for ``settle`` seconds.
    """

    turn: float = 0.1
    budget: float = 8.0
    min_rounds: int = 7
    max_rounds: int = 25
    settle: float = 0.01
    max_iterations: int = 1000


_PACE_LASTS = 0.1
"""For this many seconds a measurement of the machine's speed stays valid."""


class _Pace:
    """How slow the machine was since the last question: the longest time of a fixed piece of work, in seconds."""

    def __init__(self, probe: Callable[[], float] | None, clock: Callable[[], float]) -> None:
        self._probe = probe
        self._clock = clock
        self._known, self._until = 0.0, -math.inf
        self._worst = 0.0

    def look(self) -> None:
        """Measure, unless the last measurement is recent."""
        if self._probe is not None and self._clock() >= self._until:
            self._known = self._probe()
            self._until = self._clock() + _PACE_LASTS
        self._worst = max(self._worst, self._known)

    def worst(self) -> float:
        """The longest time since the last call, including the last measurement before it."""
        worst, self._worst = self._worst, self._known
        return worst


@dataclass
class Samples:
    """The measurements of one contestant: the median seconds of each round."""

    iterations: int
    rounds: list[float] = field(default_factory=list)
    awake: float = 0.0
    """Processor seconds used during the turns of others, per second."""
    failure: str | None = None
    """Why it stopped, if it did."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def paired(numerator: Sequence[float], denominator: Sequence[float]) -> Spread | None:
    """Median and quartiles of the ratios, round by round; None without a round that both finished."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=False)]
    return spread(ratios) if ratios else None


def alternate(
    entrants: Sequence[Entrant],
    timing: Timing,
    *,
    pace: Callable[[], float] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Samples]:
    """Rounds A B C A B C ... of all entrants; one that fails is left out from then on.

    The first round measures single runs, which determine how many runs fill a turn, and is not counted. ``pace``
    does a fixed piece of work and returns its seconds: the half of the rounds in which it was fastest is kept,
    but not fewer than ``timing.min_rounds``.
    """
    samples: dict[str, Samples] = {}
    trial = 0.0
    for entrant in entrants:
        sleep(timing.settle)
        try:
            seconds = statistics.median(entrant.measure(1, 3))
        except EntrantError as error:
            samples[entrant.name] = Samples(0, failure=str(error))
            continue
        count = min(max(round(timing.turn / seconds), 1), timing.max_iterations)
        samples[entrant.name] = Samples(count)
        trial += timing.settle + seconds * (count + _warm(count))
    rounds = min(max(round(timing.budget / max(trial, 1e-9)), timing.min_rounds), timing.max_rounds)
    others = dict.fromkeys(samples, 0.0)
    machine = _Pace(pace, clock)
    paces = []
    for _ in range(rounds):
        machine.look()
        for entrant in entrants:
            own = samples[entrant.name]
            if own.failure is not None:
                continue
            sleep(timing.settle)
            asleep = {e.name: e.cpu_seconds() for e in entrants if e is not entrant}
            start = clock()
            try:
                own.rounds.append(
                    statistics.median(entrant.measure(_warm(own.iterations), own.iterations))
                )
            except EntrantError as error:
                own.failure = str(error)
                continue
            elapsed = clock() - start
            machine.look()
            for other in entrants:
                if other is not entrant:
                    samples[other.name].awake += other.cpu_seconds() - asleep[other.name]
                    others[other.name] += elapsed
        paces.append(machine.worst())
    if pace is not None:
        kept = sorted(range(rounds), key=paces.__getitem__)[
            : max(timing.min_rounds, -(-rounds // 2))
        ]
        for result in samples.values():
            result.rounds = [result.rounds[i] for i in sorted(kept) if i < len(result.rounds)]
    for name, result in samples.items():
        result.awake /= max(others[name], 1e-9)
    return samples


def _warm(iterations: int) -> int:
    return 1 if iterations < 4 else 3
