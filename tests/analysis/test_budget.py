"""The largest phi within a budget: exact, monotone, and the same that a scan over phi finds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effkernels.models import CONFIGS
from effkernels.scaling import (
    BudgetFit,
    compound_scale,
    fit_budget,
    inference_memory,
    model_cost,
    scaled_config,
    training_memory,
)

STEP, STEPS = 1 / 64, 256  # the grid of the scan, which ends at phi 4
MEASURES: dict[str, tuple[dict[str, Any], Callable[[float], int]]] = {
    "max_macs": ({}, lambda phi: model_cost(config(phi)).macs),
    "max_params": ({}, lambda phi: model_cost(config(phi)).params),
    "max_memory": (
        {"batch_size": 3},
        lambda phi: inference_memory(model_cost(config(phi), batch_size=3)).eager,
    ),
    "max_memory, level 1": (
        {"execution": "level1", "dtype": torch.float16},
        lambda phi: inference_memory(model_cost(config(phi), dtype=torch.float16)).level1,
    ),
    "max_memory, training": (
        {"training": True, "batch_size": 2},
        lambda phi: training_memory(model_cost(config(phi), batch_size=2)),
    ),
}


def config(phi: float) -> Any:
    return scaled_config(compound_scale(phi))


@cache
def scan(measure: str) -> list[int]:
    """The cost at each phi of the grid."""
    return [MEASURES[measure][1](i * STEP) for i in range(STEPS + 1)]


def fit(measure: str, budget: float) -> BudgetFit:
    return fit_budget(**{measure.partition(",")[0]: budget}, **MEASURES[measure][0])


@pytest.mark.parametrize("measure", MEASURES)
def test_costs_never_fall_as_phi_grows(measure: str) -> None:
    needs = scan(measure)
    assert needs == sorted(needs)
    assert len(set(needs)) > 100


@pytest.mark.parametrize("measure", MEASURES)
@settings(max_examples=12, deadline=None)
@given(share=st.floats(0.0, 1.0), nudge=st.integers(-1, 1))
def test_against_a_scan(measure: str, share: float, nudge: int) -> None:
    """Also with budgets exactly at, one above and one below the cost at a phi."""
    needs, need_at = scan(measure), MEASURES[measure][1]
    budget = max(needs[0], needs[round(share * (STEPS - 1))] + nudge)
    found = fit(measure, budget)
    fits = [i * STEP for i, need in enumerate(needs) if need <= budget]
    breaks = [i * STEP for i, need in enumerate(needs) if need > budget]
    assert max(fits) <= found.phi < min(breaks, default=math.inf)
    assert need_at(found.phi) <= budget < need_at(found.next_phi)
    assert found.next_phi == math.nextafter(found.phi, math.inf)


@settings(max_examples=12, deadline=None)
@given(budgets=st.tuples(st.floats(386e6, 5e9), st.floats(386e6, 5e9)))
def test_a_larger_budget_never_gives_a_smaller_phi(budgets: tuple[float, float]) -> None:
    small, large = sorted(budgets)
    assert fit_budget(max_macs=small).phi <= fit_budget(max_macs=large).phi


def test_budget_of_exactly_b0_gives_b0() -> None:
    found = fit_budget(max_macs=model_cost("efficientnet_b0").macs)
    # Multiplying the depth by slightly more than 1 already adds a block to every stage, so only phi
    # 0 is B0.
    assert 0.0 <= found.phi < 1e-8
    assert found.cost.macs == model_cost("efficientnet_b0").macs
    assert found.limited_by == ("max_macs",)


def test_the_tightest_of_several_budgets_decides() -> None:
    macs, params = fit_budget(max_macs=1e9), fit_budget(max_params=20e6)
    both = fit_budget(max_macs=1e9, max_params=20e6)
    assert both.phi == min(macs.phi, params.phi) == macs.phi
    assert both.limited_by == ("max_macs",)
    other = fit_budget(max_macs=1e12, max_params=20e6, max_memory=1e12)
    assert (other.phi, other.limited_by) == (params.phi, ("max_params",))


def test_the_result_describes_its_network() -> None:
    found = fit_budget(max_memory=2e9, batch_size=16, training=True)
    assert found.scale == compound_scale(found.phi)
    assert found.config == scaled_config(found.scale)
    assert found.cost == model_cost(found.config)
    assert found.memory == training_memory(model_cost(found.config, batch_size=16))
    assert found.memory <= 2e9


def test_a_larger_batch_leaves_a_smaller_network() -> None:
    phis = [fit_budget(max_memory=1e9, batch_size=n).phi for n in (1, 4, 16)]
    assert phis == sorted(phis, reverse=True)
    assert len(set(phis)) == 3


def test_batch_size_does_not_matter_for_macs() -> None:
    assert fit_budget(max_macs=1e9, batch_size=64).phi == fit_budget(max_macs=1e9).phi


def test_other_bases_and_coefficients() -> None:
    lite = fit_budget(max_macs=1e9, base="efficientnet_lite0")
    assert lite.phi > fit_budget(max_macs=1e9).phi
    assert lite.config.stages == CONFIGS["efficientnet_lite0"].stages
    with pytest.warns(UserWarning, match="is not about 2") as caught:
        deep = fit_budget(max_macs=1e9, alpha=3.0, beta=1.0, gamma=1.0, num_classes=10)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert deep.config.resolution == 224
    rounded = fit_budget(max_macs=2e9, resolution_divisor=32)
    assert rounded.config.resolution % 32 == 0


def test_no_warning_for_the_papers_coefficients() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_budget(1e9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no budget given: pass max_macs, max_params or max_memory"),
        (
            {"max_macs": 385_814_751},
            "max_macs=385814751 is below the minimum of 385814752, which phi=0 needs",
        ),
        (
            {"max_macs": 1e9, "max_params": 5_288_547},
            "^max_params=5288547 is below the minimum of 5288548, which phi=0 needs$",
        ),
        ({"max_memory": 0}, "max_memory=0 is below the minimum of"),
        ({"max_macs": -1}, "max_macs must be finite and at least 0, got -1"),
        ({"max_macs": math.nan}, "max_macs must be finite"),
        ({"max_params": math.inf}, "max_params must be finite"),
        ({"max_macs": 1e9, "batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"max_macs": 1e9, "alpha": 0.5}, "alpha must be finite and at least 1"),
        ({"max_macs": 1e9, "execution": "level3"}, "execution must be 'eager', 'level1' or"),
        ({"max_macs": 1e9, "base": "resnet51"}, "no model named 'resnet51'"),
        ({"max_params": 1e30}, "not used up even at phi=38.02"),
    ],
)
def test_impossible_budgets(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_budget(**options)


@pytest.mark.filterwarnings("ignore:alpha:UserWarning")
def test_a_cost_that_never_grows_cannot_limit_phi() -> None:
    with pytest.raises(ValueError, match="larger growth factors alpha, beta or gamma"):
        fit_budget(max_params=1e8, alpha=1.0, beta=1.0, gamma=1.4)


@pytest.mark.parametrize("value", ["1e9", True, [1]])
def test_budgets_are_numbers(value: object) -> None:
    with pytest.raises(TypeError, match="max_macs must be a number"):
        fit_budget(max_macs=value)  # type: ignore[arg-type]
