"""Candidates, limits and the Pareto front, without running any model."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from effkernels.analysis.accuracy import ACCURACIES, published
from effkernels.analysis.choice import (
    Candidate,
    Latency,
    Limits,
    candidates,
    exceeded,
    mark_front,
)
from effkernels.analysis.paper import TABLE_2
from effkernels.analysis.transfer import TABLE_8
from effkernels.checkpoints.semantics import parse_source, source_semantics
from effkernels.models import VARIANTS
from effkernels.scaling import inference_memory, model_cost


class TestAccuracies:
    @pytest.mark.parametrize("row", ACCURACIES, ids=lambda row: f"{row.source}-{row.resolution}")
    def test_each_is_of_weights_that_load(self, row: Any) -> None:
        source = parse_source(row.source)
        assert source.variant == row.model
        pictures = source_semantics(source).preprocessing
        assert pictures is not None
        own = row.source.startswith("timm/efficientnet")  # evaluated at larger sizes as well
        assert row.resolution == pictures.size or (own and row.resolution > pictures.size)

    def test_of_one_source_a_size_has_one(self) -> None:
        assert len({(row.source, row.resolution) for row in ACCURACIES}) == len(ACCURACIES)

    def test_they_are_near_the_papers(self) -> None:
        """The AutoAugment weights are the paper's; timm's pictures are decoded and resized a little differently."""
        found = {(row.model, row.source.rpartition(".")[2]): row.top1 for row in ACCURACIES}
        for row in TABLE_2:
            if row.is_efficientnet:
                assert found[row.group, "aa_in1k"] == pytest.approx(row.top1, abs=0.3)
                assert found[row.group, "aa_in1k"] == pytest.approx(TABLE_8[row.group][0], abs=0.3)

    def test_only_those_that_imagenet_loads(self) -> None:
        for name, variant in VARIANTS.items():
            assert {row.source for row in published(name).values()} == {variant.imagenet}
        assert published("mine") == {}

    def test_the_best_of_every_source(self) -> None:
        best = published("efficientnet_b0", every_source=True)
        assert {side: row.source for side, row in best.items()} == {
            224: "timm/tf_efficientnet_b0.ns_jft_in1k",
            256: "timm/efficientnet_b0.ra4_e3600_r224_in1k",
        }


class TestCandidates:
    def test_own_and_neighbouring_sizes(self) -> None:
        sides: dict[str, list[int]] = {}
        for row in sorted(candidates(), key=lambda row: row.resolution):
            sides.setdefault(row.model, []).append(row.resolution)
        assert len(sides) == 14
        assert sides["efficientnet_b0"] == [224, 240]
        assert sides["efficientnet_b4"] == [300, 380, 456]
        assert sides["efficientnet_b8"] == [600, 672]
        assert sides["efficientnet_lite1"] == [224, 240, 260]
        # Published for larger images than the authors' own.
        assert sides["efficientnet_lite3"] == [260, 280, 300]
        assert sides["efficientnet_lite4"] == [280, 300, 380]

    def test_an_accuracy_only_at_its_own_size(self) -> None:
        for row in candidates():
            expected = published(row.model).get(row.resolution)
            assert row.accuracy == expected
            if row.model.startswith("efficientnet_b"):
                assert (row.accuracy is not None) == row.own

    def test_costs_are_those_of_the_cost_model(self) -> None:
        rows = candidates(["efficientnet_b1"], batch_size=3)
        assert [row.macs for row in rows] == sorted(row.macs for row in rows)
        for row in rows:
            cost = model_cost("efficientnet_b1", row.resolution, batch_size=3)
            one = model_cost("efficientnet_b1", row.resolution)
            assert (row.macs, row.parameters) == (one.macs, one.params)
            assert row.memory == inference_memory(cost).eager

    def test_a_name_that_matches_twice_is_there_once(self) -> None:
        rows = candidates(["efficientnet_lite0", "*lite0"])
        assert [row.resolution for row in rows] == [224, 240]

    @pytest.mark.parametrize(
        ("patterns", "options", "said"),
        [
            (["efficientnet_b9"], {}, "did you mean efficientnet_b"),
            (["resnet50"], {}, "resnet50 has no published accuracy here to choose by"),
            ([], {}, "models must hold at least one name"),
            (["efficientnet_b0"], {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ],
    )
    def test_wrong_arguments(self, patterns: list[str], options: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            candidates(patterns, **options)


def row(name: str, top1: float | None, seconds: float | None) -> Candidate:
    """A candidate of which only accuracy and latency matter."""
    accuracy = None if top1 is None else replace(ACCURACIES[0], model=name, top1=top1)
    latency = None if seconds is None else Latency(seconds, seconds, seconds)
    return Candidate(name, 224, True, 10, 20, 30, 40, accuracy, latency)


class TestFront:
    def test_only_what_nothing_beats(self) -> None:
        rows = [
            row("small", 70.0, 1.0),
            row("slower and no better", 70.0, 2.0),
            row("worse", 69.0, 3.0),
            row("large", 80.0, 4.0),
            row("as large", 80.0, 4.0),
            row("of unknown accuracy", None, 0.1),
            row("not measured", 90.0, None),
        ]
        names = {name for name, _ in mark_front(reversed(rows), "latency")}
        assert names == {"small", "large", "as large"}

    def test_of_what_is_known_beforehand(self) -> None:
        """By MACs, the front is the models by their size; but Lite has fewer than B of equal accuracy."""
        rows = candidates()
        front = mark_front(rows, "macs")
        assert ("efficientnet_b8", 672) in front
        assert ("efficientnet_b0", 224) in front
        known = [one for one in rows if one.accuracy is not None]
        for one in known:
            beaten = any(
                other.macs < one.macs and other.accuracy.top1 >= one.accuracy.top1  # type: ignore[union-attr]
                for other in known
            )
            assert ((one.model, one.resolution) in front) != beaten


class TestLimits:
    def test_the_first_one_given_is_the_axis(self) -> None:
        assert Limits(latency=0.1, macs=1e9).axis == "latency"
        assert Limits(parameters=1e6, memory=1e6).axis == "memory"

    def test_which_are_exceeded(self) -> None:
        limits = Limits(latency=0.5, memory=30, macs=9, parameters=19)
        assert exceeded(row("a", None, 0.6), limits) == ["latency", "macs", "parameters"]
        assert exceeded(row("a", None, None), limits) == ["macs", "parameters"]
        assert exceeded(row("a", None, 0.5), Limits(latency=0.5)) == []

    @pytest.mark.parametrize(
        ("given", "error", "said"),
        [
            ({}, ValueError, "no limit given: pass latency, memory, macs or parameters"),
            ({"latency": 0.0}, ValueError, "latency must be above 0"),
            ({"macs": -1}, ValueError, "macs must be finite and at least 0, got -1"),
            ({"memory": math.nan}, ValueError, "memory must be finite"),
            ({"parameters": "5M"}, TypeError, "parameters must be a number, got str"),
        ],
    )
    def test_wrong_limits(self, given: dict[str, Any], error: type[Exception], said: str) -> None:
        with pytest.raises(error, match=said):
            Limits(**given)
