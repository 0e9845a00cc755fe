"""A choice among models whose times are made up, so that what is run and what is not is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from effkernels import choosing
from effkernels.choosing import Candidate, choose
from effkernels.choosing.drawing import draw

NS_PER_MAC = 0.1
B = ["efficientnet_b[0-7]"]
Asked = list[tuple[str, int]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Each candidate takes a tenth of a nanosecond a MAC, and nothing is computed; what is called is noted."""
    called: Asked = []

    def run_of(self: Any, row: Candidate) -> Callable[[], float]:
        def run() -> float:
            called.append((row.model, row.resolution))
            return NS_PER_MAC * 1e-6 * row.macs

        return run

    timed = lambda run: run()  # noqa: E731
    monkeypatch.setattr(choosing._Measured, "_run", run_of)
    monkeypatch.setattr(choosing, "milliseconds", timed)
    monkeypatch.setattr("effkernels.timing.milliseconds", timed)
    return called


def test_the_most_accurate_within_the_limit(asked: Asked) -> None:
    found = choose(latency=0.2, models=B, seconds=0.0)  # 2 * 10^9 MACs
    best = found.best
    assert best is not None
    assert (best.model, best.resolution) == ("efficientnet_b3", 300)
    assert best.latency is not None
    assert best.latency.median == pytest.approx(0.18, rel=0.02)
    within = [row for row in found.rows if row.fits]
    assert all(row.macs <= 2e9 for row in within)
    assert [row.macs for row in found.rows if row.macs <= 2e9] == [row.macs for row in within]
    assert found.rounds == 5


def test_what_surely_takes_too_long_is_not_run(asked: Asked) -> None:
    found = choose(latency=0.2, models=B, seconds=0.0)
    rows = {(row.model, row.resolution): row for row in found.rows}
    tried = set(asked)
    for key, row in rows.items():
        if row.macs < 3e9:  # below 1.5 times the limit it takes turns
            assert asked.count(key) > 5, key
            assert row.latency is not None
        elif key in tried:
            assert asked.count(key) == 3
            assert row.excluded == "above the limit of latency"
        else:
            assert row.latency is None
            assert row.excluded.startswith("not run: it costs more than efficientnet_")
    # B3 at 380 pixels has fewer parameters than B4 at 300: neither rules out the other.
    assert ("efficientnet_b3", 380) in tried
    assert ("efficientnet_b7", 600) not in tried


def test_costs_above_a_limit_are_not_run(asked: Asked) -> None:
    found = choose(macs=1e9, parameters=8e6, models=B, seconds=0.0)
    assert {name for name, _ in asked} == {"efficientnet_b0", "efficientnet_b1"}
    reasons = {row.model: row.excluded for row in found.rows if row.own}
    assert reasons["efficientnet_b1"] == ""
    assert reasons["efficientnet_b2"] == "above the limit of parameters"
    assert reasons["efficientnet_b7"] == "above the limit of macs and of parameters"
    assert found.best is not None
    assert found.best.model == "efficientnet_b1"


def test_the_front_is_of_the_limited_quantity(asked: Asked) -> None:
    by_time = choose(latency=0.2, models=B, seconds=0.0)
    marked = [row.model for row in by_time.rows if row.on_front]
    # B4 is above the limit, but its first calls were timed.
    assert marked == [f"efficientnet_b{number}" for number in range(5)]
    by_parameters = choose(parameters=10e6, models=B, seconds=0.0)
    assert sum(row.on_front for row in by_parameters.rows) == 8


def test_a_choice_without_published_accuracy(asked: Asked) -> None:
    lowest = choose(latency=0.17, macs=1.5e9, models=["efficientnet_b3"], seconds=0.0)
    assert [row.resolution for row in lowest.rows if row.fits] == [260]
    assert lowest.best is None
    assert lowest.as_dict()["best"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no limit given: pass latency, memory, macs or parameters"),
        ({"macs": 1e8}, "^macs=100000000 is below the minimum of 385814752, which efficientnet_b0"),
        (
            {"macs": 1e8, "memory": 1e3},
            r"memory=1000 is below the minimum of \d+, .*; macs=100000000 is below",
        ),
        (
            {"models": ["*b1", "*lite2"], "macs": 6e8, "parameters": 7e6},
            "no model is within macs=600000000, parameters=7000000 at once",
        ),
        (
            {"latency": 1e-3, "models": ["*b0"]},
            "latency=0.001 s is below what the fastest candidate takes here: "
            "efficientnet_b0 at 224 pixels took 38.6 ms",
        ),
        ({"macs": 1e9, "batch_size": 0}, "batch_size must be at least 1"),
        ({"macs": 1e9, "seconds": -1.0}, "seconds must be finite and at least 0"),
        ({"macs": 1e9, "models": ["resnet50"]}, "resnet50 has no published accuracy"),
    ],
)
def test_impossible_limits(asked: Asked, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        choose(**{"seconds": 0.0, "models": B, **options})
    assert len(asked) <= 3 * 2


def test_models_really_run() -> None:
    seen: list[str] = []
    found = choose(
        latency=60.0,
        device="cpu",
        models=["efficientnet_lite0"],
        batch_size=2,
        dtype="bfloat16",
        seconds=0.0,
        watch=seen.append,
    )
    assert seen == ["efficientnet_lite0 at 224 pixels", "efficientnet_lite0 at 240 pixels"]
    for row in found.rows:
        assert row.latency is not None
        assert 0.0 < row.latency.low <= row.latency.median <= row.latency.high < 60.0
    assert (found.dtype, found.batch_size) == (torch.bfloat16, 2)
    assert found.best is not None
    assert found.best.resolution == 224


def test_pictures(asked: Asked, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for limits, label in (
        ({"latency": 0.2}, "limit 200 ms"),
        ({"parameters": 2e7}, "limit 20 * 10^6"),
    ):
        path = tmp_path / f"{next(iter(limits))}.svg"
        draw(choose(**limits, models=[*B, "*lite*"], seconds=0.0), path)  # type: ignore[arg-type]
        text = path.read_text()
        assert "<!-- lite4 at 380 -->" in text or "latency" in limits
        for said in ("b0", "lite0", "chosen", "front", next(iter(limits)), label):
            assert f"<!-- {said}" in text, said
