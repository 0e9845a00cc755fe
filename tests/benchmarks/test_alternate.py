"""Turns, rounds and ratios, with contestants and a clock made for the test."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from benchmarks.harness.alternate import EntrantError, Timing, alternate, paired, spread


@dataclass
class World:
    """A clock, the current speed of the machine, and the order of turns."""

    now: float = 0.0
    slowness: float = 1.0
    turns: list[str] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Toy:
    """Takes ``seconds`` per run at the machine's speed; fails at turn ``fails_at``; a ``restless`` one never
    sleeps.
    """

    name: str
    world: World
    seconds: float
    fails_at: int = -1
    restless: bool = False
    runs: list[tuple[int, int]] = field(default_factory=list)

    def measure(self, warm: int, timed: int) -> list[float]:
        self.world.turns.append(self.name)
        self.runs.append((warm, timed))
        if len(self.runs) == self.fails_at:
            raise EntrantError("its process ended with -9")
        taken = self.seconds * self.world.slowness
        self.world.now += taken * (warm + timed)
        return [taken] * timed

    def cpu_seconds(self) -> float:
        return self.world.now if self.restless else 0.0


def run(world: World, *toys: Toy, rounds: int = 4) -> dict:
    timing = Timing(turn=0.1, budget=0.0, min_rounds=rounds)
    return alternate(toys, timing, sleep=world.sleep, clock=lambda: world.now)


def test_contestants_take_turns_in_every_round() -> None:
    world = World()
    samples = run(world, *(Toy(name, world, 0.01) for name in "ABC"), rounds=5)
    assert "".join(world.turns) == "ABC" * 6  # one more round to find out how long a run takes
    assert {len(s.rounds) for s in samples.values()} == {5}


def test_turns_of_fast_and_slow_contestants_take_equally_long() -> None:
    world = World()
    fast, slow = Toy("fast", world, 0.001), Toy("slow", world, 0.3)
    samples = run(world, fast, slow)
    assert samples["fast"].iterations == 100
    assert samples["slow"].iterations == 1
    assert fast.runs[-1] == (3, 100)  # warmed up first
    assert slow.runs[-1] == (1, 1)


def test_the_budget_sets_the_number_of_rounds_within_limits() -> None:
    def rounds(budget: float) -> int:
        world = World()
        timing = Timing(turn=0.1, budget=budget, settle=0.0, min_rounds=3, max_rounds=20)
        toys = [Toy("A", world, 0.1)]
        samples = alternate(toys, timing, sleep=world.sleep, clock=lambda: world.now)
        return len(samples["A"].rounds)

    assert [rounds(0.0), rounds(2.0), rounds(100.0)] == [3, 10, 20]


def test_what_slows_the_machine_cancels_out_of_paired_ratios() -> None:
    class Changing(Toy):
        def measure(self, warm: int, timed: int) -> list[float]:
            if self.name == "A":
                self.world.slowness = 1.0 + len(self.world.turns) % 5
            return super().measure(warm, timed)

    world = World()
    samples = run(world, Changing("A", world, 0.01), Changing("B", world, 0.02), rounds=9)
    ratio = paired(samples["B"].rounds, samples["A"].rounds)
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((2.0, 2.0, 2.0))
    times = spread(samples["A"].rounds)
    assert times.high > 1.5 * times.low


@dataclass
class Neighbours:
    """Slow the machine down in some of its seconds."""

    world: World
    slow: tuple[int, ...]
    looks: list[float] = field(default_factory=list)

    def pace(self) -> float:
        self.looks.append(self.world.now)
        self.world.now += 0.01
        return 3.0 if int(self.world.now) in self.slow else 1.0


class Slowed(Toy):
    """As slow as the neighbours make it."""

    def __init__(self, name: str, neighbours: Neighbours, fails_at: int = -1) -> None:
        super().__init__(name, neighbours.world, 0.1, fails_at)
        self.neighbours = neighbours

    def measure(self, warm: int, timed: int) -> list[float]:
        self.world.slowness = 2.0 if int(self.world.now) in self.neighbours.slow else 1.0
        return super().measure(warm, timed)


def paced(slow: tuple[int, ...], timing: Timing, fails_at: int = -1) -> tuple[dict, Neighbours]:
    neighbours = Neighbours(World(), slow)
    toys = [Slowed("A", neighbours), Slowed("B", neighbours, fails_at)]
    sleep, clock = neighbours.world.sleep, lambda: neighbours.world.now
    return alternate(toys, timing, pace=neighbours.pace, sleep=sleep, clock=clock), neighbours


def test_rounds_in_which_the_machine_was_slow_do_not_count() -> None:
    timing = Timing(turn=0.1, budget=8.0, min_rounds=7, max_rounds=20)
    samples, _ = paced((2, 3, 7, 8, 9), timing)
    for sample in samples.values():
        assert sample.rounds == pytest.approx([0.1] * 10)


def test_the_minimum_number_of_rounds_is_kept_however_slow() -> None:
    samples, _ = paced(tuple(range(3, 100)), Timing(turn=0.1, budget=0.0, min_rounds=7))
    rounds = samples["A"].rounds
    assert len(rounds) == 7
    assert rounds == sorted(rounds)  # in their original order


def test_a_failed_contestant_keeps_its_rounds_that_count() -> None:
    timing = Timing(turn=0.1, budget=8.0, min_rounds=2, max_rounds=20)
    samples, _ = paced((2, 3), timing, fails_at=8)
    assert samples["B"].failure is not None
    assert samples["B"].rounds == pytest.approx([0.1] * len(samples["B"].rounds))
    ratio = paired(samples["B"].rounds, samples["A"].rounds)
    assert ratio is not None
    assert (ratio.low, ratio.high) == pytest.approx((1.0, 1.0))


def test_the_pace_is_measured_only_now_and_then() -> None:
    neighbours = Neighbours(World(), ())
    toys = [Toy(name, neighbours.world, 0.001) for name in "ABC"]
    timing = Timing(turn=0.01, budget=0.0, settle=0.0, min_rounds=20)
    alternate(
        toys,
        timing,
        pace=neighbours.pace,
        sleep=neighbours.world.sleep,
        clock=lambda: neighbours.world.now,
    )
    gaps = [b - a for a, b in itertools.pairwise(neighbours.looks)]
    assert min(gaps) >= 0.1
    assert max(gaps) < 0.2


@pytest.mark.parametrize("turn", [1, 3])
def test_a_failing_contestant_is_left_out_and_the_others_go_on(turn: int) -> None:
    world = World()
    samples = run(world, Toy("A", world, 0.01), Toy("B", world, 0.01, fails_at=turn))
    assert samples["B"].failure == "its process ended with -9"
    assert world.turns.count("B") == turn
    assert len(samples["A"].rounds) == 4
    assert samples["A"].failure is None


def test_a_contestant_that_does_not_sleep_is_detected() -> None:
    world = World()
    samples = run(world, Toy("A", world, 0.01), Toy("B", world, 0.01, restless=True))
    assert samples["A"].awake == 0.0
    assert samples["B"].awake == pytest.approx(1.0)


def test_quartiles() -> None:
    assert spread([3.0]).low == 3.0
    found = spread([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)
    assert paired([], []) is None
