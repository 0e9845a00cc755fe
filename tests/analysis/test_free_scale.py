"""The power law, and the most accurate network within a budget by it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from effkernels.analysis.power_law import PowerLaw, fit, published_rows
from effkernels.scaling import (
    TABLE_3,
    TABLE_7,
    fit_budget,
    fit_free,
    fitted_law,
    inference_memory,
    model_cost,
)


class TestTables:
    def test_counts_of_rows(self) -> None:
        assert [row.scaling for row in TABLE_7] == [
            *("none", "depth", "width", "resolution", "compound")
        ]
        assert [row.network for row in TABLE_3].count("MobileNetV1") == 4
        assert len(TABLE_3) == 14

    def test_factors_are_of_the_named_dimension(self) -> None:
        for row in (*TABLE_3, *TABLE_7):
            if row.scaling in ("depth", "width", "resolution"):
                assert row.factors is not None
                place = ("depth", "width", "resolution").index(row.scaling)
                assert row.factors[place] > 1.0
                assert math.prod(row.factors) == row.factors[place]
        assert {row.network for row in TABLE_3 if row.factors is None} == {
            "MobileNetV2",
            "ResNet-50",
        }

    def test_the_papers_macs_of_b0_are_up_to_a_fifth_above_ours(self) -> None:
        from effkernels.models import get_config

        for row in TABLE_7:
            assert row.factors is not None
            depth, width, side = row.factors
            config = get_config("efficientnet_b0").scale(depth=depth, width=width, resolution=side)
            assert 0.98 < row.flops / model_cost(config).macs < 1.27


class TestLaw:
    def test_constants_of_a_made_up_law_are_found(self) -> None:
        law = PowerLaw(floor=12.0, scale=9.0, q=0.8, p=2.0, residuals=())
        factors = [row[:3] for row in published_rows()]
        found = fit([(*row, law.accuracy(*row)) for row in factors])
        assert found.rms < 0.01
        for d, w, r in [*factors, (2.0, 2.0, 2.0)]:
            assert found.accuracy(d, w, r) == pytest.approx(law.accuracy(d, w, r), abs=0.05)
        assert (found.q, found.p) == pytest.approx((0.8, 2.0), rel=0.05)

    def test_it_is_the_least_squares_solution(self) -> None:
        """No constant can be moved by a thousandth without a larger error."""
        law = fitted_law()

        def squares(**changed: float) -> float:
            constants = {"floor": law.floor, "scale": law.scale, "q": law.q, "p": law.p, **changed}
            other = PowerLaw(**constants, residuals=())
            return sum((top1 - other.accuracy(*row)) ** 2 for *row, top1 in published_rows())

        least = squares()
        assert least == pytest.approx(len(published_rows()) * law.rms**2)
        # scale and q are fitted to logarithms, the other two to percentage points.
        for name in ("floor", "p"):
            refitted = [squares(**{name: getattr(law, name) * (1 + by)}) for by in (-0.03, 0.03)]
            assert min(refitted) > least

    def test_it_describes_the_published_rows(self) -> None:
        law = fitted_law()
        assert len(law.residuals) == 13
        assert law.rms < 0.3
        for (*factors, top1), residual in zip(published_rows(), law.residuals, strict=True):
            assert top1 - law.accuracy(*factors) == pytest.approx(residual)

    def test_all_dimensions_together_beat_each_alone_at_equal_macs(self) -> None:
        law = fitted_law()
        together = law.accuracy(4 ** (1 / 3), 4 ** (1 / 6), 4 ** (1 / 6))
        for factors in ((4.0, 1.0, 1.0), (1.0, 2.0, 1.0), (1.0, 1.0, 2.0)):
            assert together > law.accuracy(*factors) + 1.0
        assert law.size(8.0, math.sqrt(8.0), math.sqrt(8.0)) == pytest.approx(8.0)
        assert law.size(1.0, 1.0, 1.0) == pytest.approx(1.0)


class TestFit:
    def test_it_uses_the_budget_and_beats_the_compound_scale(self) -> None:
        found = fit_free(max_macs=8e8)
        assert found.cost == model_cost(found.config)
        assert found.cost.macs <= 8e8 < model_cost(found.config, found.config.resolution + 1).macs
        assert found.compound == fit_budget(max_macs=8e8)
        assert found.accuracy is not None
        assert found.compound_accuracy is not None
        assert found.accuracy >= found.compound_accuracy
        assert min(found.depth, found.width, found.resolution) >= 1.0
        assert not found.extrapolated

    def test_it_is_the_best_of_a_grid(self) -> None:
        found = fit_free(max_macs=6e8)
        base, law = model_cost("efficientnet_b0"), fitted_law()
        from effkernels.models import get_config

        best = 0.0
        for depth in (1.0, 1.25, 4 / 3, 1.5):
            for width in (1.0, 1.0625, 1.125, 1.1875, 1.25):
                for side in range(224, 281, 4):
                    if depth * width**2 * (side / 224) ** 2 * base.macs > 9e8:
                        continue  # whatever is rounded, that is too much
                    config = get_config("efficientnet_b0").scale(
                        depth=depth, width=width, resolution=side / 224
                    )
                    if model_cost(config).macs <= 6e8:
                        best = max(best, law.accuracy(depth, width, side / 224))
        assert found.accuracy is not None
        assert found.accuracy >= best

    def test_memory_limits_too(self) -> None:
        found = fit_free(max_macs=8e8, max_memory=90e6, batch_size=4)
        cost = model_cost(found.config, batch_size=4)
        assert found.memory == inference_memory(cost).eager <= 90e6
        assert found.cost.macs <= 8e8
        more = fit_free(max_macs=8e8, max_memory=900e6, batch_size=4)
        assert more.accuracy is not None
        assert found.accuracy is not None
        assert more.accuracy > found.accuracy

    def test_another_base_has_no_accuracy(self) -> None:
        found = fit_free(max_macs=8e8, base="efficientnet_lite0")
        assert found.accuracy is found.compound_accuracy is None
        assert found.config.activation == "relu6"
        assert found.cost.macs <= 8e8

    @pytest.mark.parametrize(
        ("options", "error", "said"),
        [
            ({}, ValueError, "no budget given: pass max_macs or max_memory"),
            ({"max_macs": 1e8}, ValueError, "max_macs=100000000 is below the minimum of 385814752"),
            ({"max_macs": 1e13}, ValueError, "the search ends at 10"),
            ({"max_memory": math.nan}, ValueError, "max_memory must be finite"),
            ({"max_macs": "1G"}, TypeError, "max_macs must be a number, got str"),
            ({"max_macs": 1e9, "batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ],
    )
    def test_wrong_budgets(
        self, options: dict[str, Any], error: type[Exception], said: str
    ) -> None:
        with pytest.raises(error, match=said):
            fit_free(**options)
