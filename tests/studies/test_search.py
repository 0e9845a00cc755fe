"""MNAS's space as data, evolution and random search, and their replay on a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from effkernels import studies
from effkernels.studies import live, replaying
from effkernels.studies.evolution import best_so_far, network_name
from effkernels.studies.space import Choice, Decision, SearchSpace
from studies import TINY, FakeTrainings, trainer_in

SMALL = SearchSpace(
    (
        Decision("operator", (0, 1), ("conv", "sepconv", "mbconv")),
        Decision("expand_ratio", (1, 2), (1, 4, 6)),
        Decision("filters", (2,), (0.75, 1.0, 1.25)),
        Decision("skip", (1,), (False, True)),
    )
)


def test_sizes_and_enumeration() -> None:
    assert studies.MNAS.size == (3 * 2 * 2 * 3 * 2 * 3 * 3) ** 3
    fields = {d.field for d in studies.MNAS.decisions}
    assert {d.field for d in studies.TABLED.decisions} == fields, "a kind of decision is missing"
    choices = list(studies.TABLED)
    assert len(set(choices)) == studies.TABLED.size == 288
    assert len({network_name(studies.TABLED, choice) for choice in choices}) == 216


def test_a_choice_is_what_it_says() -> None:
    stages = lambda *choice: SMALL.architecture(choice).config.stages  # noqa: E731
    conv, sep, mb = (stages(i, 1, 0, 1) for i in range(3))
    assert conv[0].block == conv[1].block == "fused_mbconv"
    assert conv[1].expand_ratio == sep[1].expand_ratio == 1
    assert sep[1].block == mb[1].block == "mbconv"
    assert mb[1].expand_ratio == mb[2].expand_ratio == conv[2].expand_ratio == 4
    assert mb[2].out_channels == 16  # 0.75 * 20 = 15, rounded up to an even number
    assert SMALL.architecture((2, 1, 0, 0)).no_skip == (1,)
    assert SMALL.describe((0, 2, 1, 1)) == {
        "operator of stage 0, 1": "conv",
        "expand_ratio of stage 1, 2": 6,
        "filters of stage 2": 1.0,
        "skip of stage 1": True,
    }
    fewer = SearchSpace((Decision("layers", (0, 1), (-1, 0, 1)),))
    assert [[s.repeats for s in fewer.architecture((i,)).config.stages] for i in range(3)] == [
        [1, 1, 2],
        [1, 2, 2],
        [2, 3, 2],
    ]


def test_mutations_change_one_decision() -> None:
    random = Random(0)
    changed: set[tuple[int, int, int]] = set()
    for _ in range(500):
        choice = SMALL.random(random)
        child = SMALL.mutate(choice, random)
        places = [i for i, (a, b) in enumerate(zip(choice, child, strict=True)) if a != b]
        assert len(places) == 1
        changed.add((places[0], choice[places[0]], child[places[0]]))
        assert all(0 <= c < len(d.options) for c, d in zip(child, SMALL.decisions, strict=True))
    assert len(changed) == 6 + 6 + 6 + 2, "every change of an option to another happens"


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ((), "decisions must hold at least one"),
        ((("width", (0,), (1, 2)),), "field must be one of operator, kernel_size"),
        ((("skip", (), (True, False)),), "must be for at least one stage"),
        ((("skip", (3,), (True, False)),), "stages of 'skip' must be 0 to 2, got 3"),
        ((("skip", (0,), (True,)),), "two or more different options"),
        ((("operator", (0,), ("conv", "pool")),), "operators must be of conv, sepconv, mbconv"),
        ((("skip", (0, 1), (True, False)), ("skip", (1,), (True, False))), "is decided twice"),
    ],
)
def test_spaces_that_do_not_do(decisions: tuple[Choice, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchSpace(tuple(Decision(*d) for d in decisions))  # type: ignore[arg-type]


def test_the_objective() -> None:
    assert studies.reward(0.8, 2e6, 2e6) == pytest.approx(0.8)
    # Section 4: twice the MACs are worth 2 ** 0.07, about 5 %.
    assert studies.reward(0.8 * 2**0.07, 4e6, 2e6) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="must be above 0, got 0 and 1"):
        studies.reward(0.5, 0, 1)


def hill(choice: Choice) -> float:
    """A smooth objective in TABLED: the distance to one choice."""
    return -float(sum(abs(a - b) for a, b in zip(choice, (1, 1, 1, 2, 1, 2, 1), strict=True)))


def test_searches_pay_for_no_network_twice_and_follow_their_seed() -> None:
    for strategy in (studies.evolve, studies.random_search):
        tried = strategy(studies.TABLED, hill, 60, Random(3))
        assert len({network_name(studies.TABLED, choice) for choice, _ in tried}) == 60
        assert tried == strategy(studies.TABLED, hill, 60, Random(3))
        assert tried != strategy(studies.TABLED, hill, 60, Random(4))
        best = best_so_far(tried)
        assert [hill(c) for c in best] == list(np.maximum.accumulate([v for _, v in tried]))
        everything = strategy(SMALL, lambda choice: 0.0, 1000, Random(0))
        assert len(everything) == len({network_name(SMALL, choice) for choice in SMALL})
    with pytest.raises(ValueError, match="budget must be at least 1 network, got 0"):
        studies.evolve(SMALL, hill, 0, Random(0))
    with pytest.raises(ValueError, match="tournament must be from 1 to the population of 3, got 4"):
        studies.evolve(SMALL, hill, 9, Random(0), population=3)


def test_evolution_climbs_a_hill_faster_than_luck() -> None:
    best = {
        strategy: [
            hill(best_so_far(strategy(studies.TABLED, hill, 50, Random(seed)))[-1])
            for seed in range(20)
        ]
        for strategy in (studies.evolve, studies.random_search)
    }
    assert np.mean(best[studies.evolve]) > np.mean(best[studies.random_search]) + 0.3


def test_what_counts_is_the_seed_that_a_search_does_not_see() -> None:
    choices = list(studies.TABLED)
    # The seeds contradict each other: what a search chooses by one is bad by the other.
    rewards = {c: (hill(c), 1 - hill(c)) for c in choices}
    runs = studies.replay(studies.TABLED, rewards, budget=50, times=4)
    assert list(runs) == ["evolution", "random"]
    for rows in runs.values():
        assert rows.shape == (4, 50)
        assert (rows[0::2] >= 1).all(), "seed 0 is seen, seed 1 judges"
        assert (rows[1::2] <= 0).all(), "seed 1 is seen, seed 0 judges"
        assert (rows[:, -1] < rows[:, 0]).all()


def test_the_study_trains_each_network_with_two_seeds(tmp_path: Path, fake: FakeTrainings) -> None:
    document = studies.search_study(trainer_in(tmp_path), SMALL, TINY, budget=20, times=10)
    names = {network_name(SMALL, choice) for choice in SMALL}
    assert len(fake.keys) == len(set(fake.keys)) == 2 * len(names)
    assert document["networks"] == len(names)
    assert len(document["best_so_far"]["random"]["mean"]) == 20
    assert [row["networks"] for row in document["evolution_minus_random"]] == [5, 10, 15, 20]
    rows = document["best_networks"]
    assert sum(rows[0]["rewards"]) / 2 == pytest.approx(document["best_of_table"])
    # The fake accuracy grows with MACs, and these with the expansion.
    expansions = [o["mean"] for o in document["options"] if o["field"] == "expand_ratio"]
    assert len(expansions) == 3
    assert expansions == sorted(expansions)
    page = replaying.page(json.loads(json.dumps(document)))
    assert replaying.verdict(document) in page
    with pytest.raises(ValueError, match=f"budget must be from 2 to below the {len(names)}"):
        studies.search_study(trainer_in(tmp_path), SMALL, TINY, budget=500)
    with pytest.raises(ValueError, match="too many to train all of them"):
        studies.trained_table(trainer_in(tmp_path), studies.MNAS, TINY)


def networks_of(space: SearchSpace) -> int:
    return len({network_name(space, choice) for choice in space})


class FewMacsAreSlow(studies.Latencies):
    """A network of fewer MACs takes longer, and nothing is measured."""

    def of(self, architectures: Sequence[studies.Architecture]) -> list[float]:
        return [1e3 / architecture.cost(10, 1).macs for architecture in architectures]


def test_latency_as_the_cost(tmp_path: Path, fake: FakeTrainings) -> None:
    measured = FewMacsAreSlow(tmp_path / "latencies.json")
    document = studies.search_study(
        trainer_in(tmp_path), SMALL, TINY, budget=20, times=4, measured=measured
    )
    assert document["study"] == "search_latency"
    costs = document["costs"]
    assert len(costs["macs"]) == len(costs["latency"]) == networks_of(SMALL)
    assert costs["rank_correlation"] == pytest.approx(-1.0)
    target = document["objective"]["target_latency"]
    assert target == np.median(costs["latency"])
    for row in document["best_networks"]:
        assert row["latency"] == 1e3 / row["macs"]
        wanted = [studies.reward(a, row["latency"], target) for a in row["accuracies"]]
        assert row["rewards"] == pytest.approx(wanted)
    page = replaying.page(json.loads(json.dumps(document)))
    assert "ACC * (latency / " in page
    assert "rank correlation of -1.00" in page
    figure = pytest.importorskip("matplotlib.figure").Figure()
    replaying.draw(document, figure)
    assert [axes.get_xlabel() for axes in figure.axes] == ["networks trained", "million MACs"]


@pytest.mark.parametrize("by_latency", [False, True])
def test_mnas_whole_space(tmp_path: Path, fake: FakeTrainings, by_latency: bool) -> None:
    measured = FewMacsAreSlow(tmp_path / "latencies.json") if by_latency else None
    options: dict[str, Any] = {"budget": 20, "judges": 2, "measured": measured}
    with pytest.raises(studies.OutOfTime):
        live.live_search(trainer_in(tmp_path, seconds=-1.0), TINY, **options)
    document = live.live_search(trainer_in(tmp_path), TINY, **options)
    trained = len(fake.keys)
    assert len(set(fake.keys)) == trained
    assert live.live_search(trainer_in(tmp_path), TINY, **options) == document
    assert len(fake.keys) == trained, "what is in the store is trained again"
    cost = document["objective"]["cost"]
    assert document["objective"]["target"] == document["base"][cost]
    for run in document["strategies"].values():
        rewards = [row["reward"] for row in run["tried"]]
        assert len(rewards) == 20
        assert run["best_so_far"] == list(np.maximum.accumulate(rewards))
        for row in run["tried"]:
            wanted = studies.reward(row["accuracy"], row[cost], document["objective"]["target"])
            assert row["reward"] == pytest.approx(wanted)
        best = run["tried"][int(np.argmax(rewards))]
        assert run["choice"]["macs"] == best["macs"]
        # The judges' seeds are others than the one that the search saw.
        assert best["accuracy"] not in run["choice"]["accuracies"]
    page = live.page(json.loads(json.dumps(document)))
    assert "| evolution's choice |" in page
    assert ("| ms |" in page) == by_latency
    live.draw(document, pytest.importorskip("matplotlib.figure").Figure())


def test_budgets_that_do_not_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="budget must be at least 2 networks, got 1"):
        live.live_search(trainer_in(tmp_path), TINY, budget=1)
    with pytest.raises(ValueError, match="judges must be at least 2 seeds"):
        live.live_search(trainer_in(tmp_path), TINY, judges=1)


def test_a_verdict_needs_an_interval_beside_zero() -> None:
    def said(low: float, high: float) -> str:
        return replaying.verdict({"evolution_minus_random": [{"low": low, "high": high}]})

    assert said(0.1, 0.2) == "Evolution found better networks than random search"
    assert said(-0.2, -0.1) == "Evolution lost to random search"
    assert said(-0.1, 0.1) == "Evolution and random search cannot be told apart"
