"""``pytest benchmarks/ --benchmark-only``: one test for each contestant of each row.

pytest-benchmark's own loop would run one contestant after the other. So the first test of a row measures all of its
contestants in alternating rounds, and each test passes its contestant's rounds to the fixture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.cases import Case, Suite
from benchmarks.contestants import Contestant
from benchmarks.report.results import Outcome, Row

pytest.importorskip("pytest_benchmark", reason="pip install 'effkernels[bench]'")


class _Recorded:
    """A clock that replays recorded rounds: between two readings one of them passes."""

    def __init__(self) -> None:
        self.rounds: list[float] = []
        self._now = 0.0
        self._running = False

    def __call__(self) -> float:
        if self._running:
            self._now += self.rounds.pop(0)
        self._running = not self._running
        return self._now


_clock = _Recorded()


def recorded_rounds() -> float:
    """The clock of these rows; pytest-benchmark prints its name."""
    return _clock()


@pytest.mark.benchmark(timer=recorded_rounds)
def test_row(
    benchmark: Any,
    measured_row: Callable[[Suite, Case], Row],
    suite: Suite,
    case: Case,
    contestant: Contestant,
) -> None:
    row = measured_row(suite, case)
    outcome = row.outcome(contestant.name)
    assert outcome is not None
    if outcome.status != "ok":
        said = f"{contestant.name}: {outcome.status}: {outcome.reason}"
        if contestant.ours:
            pytest.fail(said)
        pytest.skip(said)
    benchmark.group = f"{suite.heading}: {case.title}"
    benchmark.extra_info.update(_extra(row, outcome))
    _clock.rounds = list(outcome.rounds)
    benchmark.pedantic(lambda: None, rounds=len(outcome.rounds), iterations=1)


def _extra(row: Row, outcome: Outcome) -> dict[str, Any]:
    ratio = row.speedup(outcome)
    return {
        "runs_in_a_round": outcome.iterations,
        "effkernels_times_as_fast": None if ratio is None else round(ratio.median, 3),
        "share_of_bound": row.share_of_bound(outcome),
        "minimum_bytes": row.bytes,
        "peak_bytes": outcome.peak_bytes,
        "error": outcome.error,
        "error_allowed": outcome.allowed,
        **outcome.details,
    }
