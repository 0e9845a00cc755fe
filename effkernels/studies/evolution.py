"""The search that made B0: accuracy against cost in one objective, and two ways to look for its largest value.

Source: Tan and Le 2019 (arXiv 1905.11946), section 4: ACC * (FLOPS / T) ^ w with w = -0.07, by MNAS's search, a
recurrent controller. Here regularised evolution (Real et al. 2019, arXiv 1802.01548) takes its place, which needs no
training of its own; and random search stands beside it.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from random import Random

from effkernels.studies.space import Choice, SearchSpace

EXPONENT = -0.07
Strategy = Callable[
    [SearchSpace, Callable[[Choice], float], int, Random], list[tuple[Choice, float]]
]

_UNTRIED_MUTATIONS = 30


def reward(accuracy: float, cost: float, target: float, exponent: float = EXPONENT) -> float:
    """ACC * (cost / target) ^ exponent: a network of twice the cost must be 5 % better, relatively.

    The cost is that of MACs, as in the paper, or latency, as in MNAS.

    Raises:
        ValueError: the cost or the target are not above 0.
    """
    if not (cost > 0 and target > 0 and math.isfinite(target)):
        raise ValueError(f"the cost and its target must be above 0, got {cost:g} and {target:g}")
    return float(accuracy * (cost / target) ** exponent)


@cache
def network_name(space: SearchSpace, choice: Choice) -> str:
    """The same for all choices that make the same network."""
    return json.dumps(space.architecture(choice).to_json())


def random_search(
    space: SearchSpace, evaluate: Callable[[Choice], float], budget: int, random: Random
) -> list[tuple[Choice, float]]:
    """Up to ``budget`` different networks, drawn at random; with their values, in order."""
    run = _Run(space, evaluate, budget)
    while run.going and (choice := _untried(run, lambda: space.random(random))):
        run.value(choice)
    return run.tried


def evolve(
    space: SearchSpace,
    evaluate: Callable[[Choice], float],
    budget: int,
    random: Random,
    *,
    population: int = 16,
    tournament: int = 4,
) -> list[tuple[Choice, float]]:
    """Regularised evolution: the best of some of the living has a mutated child, and the oldest dies.

    Args:
        space: to search.
        evaluate: the value of a choice; higher is better. Called once for each network.
        budget: networks to evaluate at most.
        random: decides everything.
        population: alive at a time; as many random ones come first.
        tournament: among how many of them the best becomes the parent.

    Returns:
        The networks in the order of evaluation, each with its value.

    Raises:
        ValueError: a budget, population or tournament out of range.
    """
    if not 1 <= tournament <= population:
        raise ValueError(
            f"tournament must be from 1 to the population of {population}, got {tournament}"
        )
    run = _Run(space, evaluate, budget)
    alive: deque[tuple[Choice, float]] = deque()
    while run.going and len(alive) < population:
        choice = _untried(run, lambda: space.random(random))
        if choice is None:
            return run.tried
        alive.append((choice, run.value(choice)))
    while run.going:
        parent = max(random.sample(list(alive), tournament), key=lambda one: one[1])[0]
        child = _untried(
            run,
            lambda parent=parent: space.mutate(parent, random),  # type: ignore[misc]
            _UNTRIED_MUTATIONS,
        )
        if child is None:  # all around it is known
            child = _untried(run, lambda: space.random(random))
        if child is None:
            break
        alive.append((child, run.value(child)))
        alive.popleft()
    return run.tried


STRATEGIES: dict[str, Strategy] = {"evolution": evolve, "random": random_search}


class _Run:
    """What one search has tried. Names of networks are compared: a network is not paid for twice."""

    def __init__(
        self, space: SearchSpace, evaluate: Callable[[Choice], float], budget: int
    ) -> None:
        if budget < 1:
            raise ValueError(f"budget must be at least 1 network, got {budget}")
        self.space, self._evaluate, self._budget = space, evaluate, budget
        self.tried: list[tuple[Choice, float]] = []
        self.names: set[str] = set()

    @property
    def going(self) -> bool:
        return len(self.tried) < self._budget

    def value(self, choice: Choice) -> float:
        value = self._evaluate(choice)
        self.tried.append((choice, value))
        self.names.add(network_name(self.space, choice))
        return value


def _untried(run: _Run, draw: Callable[[], Choice], draws: int | None = None) -> Choice | None:
    """A drawn choice whose network is new to the run; None if there seems to be none left."""
    for _ in range(draws or 20 * min(run.space.size, 10_000)):
        choice = draw()
        if network_name(run.space, choice) not in run.names:
            return choice
    return None


def best_so_far(tried: Sequence[tuple[Choice, float]]) -> list[Choice]:
    """After each evaluation the choice with the highest value so far."""
    best: list[tuple[Choice, float]] = []
    for one in tried:
        best.append(one if not best or one[1] > best[-1][1] else best[-1])
    return [choice for choice, _ in best]
