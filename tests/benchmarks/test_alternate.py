"""Turns, rounds and ratios, on contestants and a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from benchmarks.alternate import EntrantError, Timing, alternate, paired, spread


@dataclass
class World:
    """A clock, the speed of the machine at this time, and who ran when."""

    now: float = 0.0
    slowness: float = 1.0
    turns: list[str] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Toy:
    """Takes ``seconds`` a run on the machine as it is; ``fails_at`` counts its turns; ``restless`` never sleeps."""

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
    assert "".join(world.turns) == "ABC" * 6  # one more to learn how long a run takes
    assert {len(s.rounds) for s in samples.values()} == {5}


def test_a_turn_lasts_as_long_for_the_fast_as_for_the_slow() -> None:
    world = World()
    fast, slow = Toy("fast", world, 0.001), Toy("slow", world, 0.3)
    samples = run(world, fast, slow)
    assert samples["fast"].iterations == 100
    assert samples["slow"].iterations == 1
    assert fast.runs[-1] == (3, 100)  # warmed up first
    assert slow.runs[-1] == (1, 1)


def test_the_budget_sets_the_rounds_within_its_limits() -> None:
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


@pytest.mark.parametrize("turn", [1, 3])
def test_one_that_fails_is_left_out_and_the_others_go_on(turn: int) -> None:
    world = World()
    samples = run(world, Toy("A", world, 0.01), Toy("B", world, 0.01, fails_at=turn))
    assert samples["B"].failure == "its process ended with -9"
    assert world.turns.count("B") == turn
    assert len(samples["A"].rounds) == 4
    assert samples["A"].failure is None


def test_one_that_does_not_sleep_is_found_out() -> None:
    world = World()
    samples = run(world, Toy("A", world, 0.01), Toy("B", world, 0.01, restless=True))
    assert samples["A"].awake == 0.0
    assert samples["B"].awake == pytest.approx(1.0)


def test_quartiles() -> None:
    assert spread([3.0]).low == 3.0
    found = spread([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)
    assert paired([], []) is None
