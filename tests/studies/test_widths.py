"""Width at four pairs of depth and resolution."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from effkernels.studies import Architecture, small_config, widths
from studies import TINY, FakeTrainings, trainer_in


def test_lines_begin_at_width_1_and_meet_at_the_targets() -> None:
    base = Architecture(small_config()).cost(10, 1).macs
    lines = widths.networks((5.0, 8.0))
    for (depth, resolution), line in zip(widths.PAIRS, lines, strict=True):
        (own, first, _), *wider = line
        assert (first.alpha, first.beta, first.gamma) == (depth, 1.0, resolution)
        assert own < 5
        for target, multipliers, network in wider:
            assert (multipliers.alpha, multipliers.gamma) == (depth, resolution)
            assert network.cost(10, 1).macs / base == pytest.approx(target, rel=0.08)
            assert network.config.resolution == (14 if resolution == 1 else 18)
    with pytest.raises(
        ValueError, match=r"targets must be above 3\.31, .* depth 2 and resolution 1\.3"
    ):
        widths.networks((3.0,))
    with pytest.raises(ValueError, match="targets must be ratios above 1"):
        widths.networks((0.5,))
    with pytest.raises(ValueError, match="pairs must hold at least one"):
        widths.networks((2.0,), ())
    with pytest.raises(ValueError, match=r"resolution 2\.5 of a pair makes pictures larger"):
        widths.networks((9.0,), ((1.0, 2.5),))


def test_pairs_are_compared_at_equal_macs(tmp_path: Path, fake: FakeTrainings) -> None:
    document = widths.width_sweep(TINY, trainer_in(tmp_path), targets=(5.0,), seeds=2)
    assert len(fake.keys) == 4 * 2 * 2
    differences = document["at_equal_macs"]
    assert [(d["depth"], d["resolution"]) for d in differences] == list(widths.PAIRS[1:])
    first, *others = (line["rows"][1]["mean"] for line in document["lines"])
    assert [d["difference"] for d in differences] == pytest.approx([o - first for o in others])
    scatter = [
        np.var(row["accuracies"], ddof=1) for line in document["lines"] for row in line["rows"]
    ]
    for difference in differences:
        assert difference["standard_error"] == pytest.approx(np.mean(scatter) ** 0.5)
    with pytest.raises(ValueError, match="seeds must be at least 2"):
        widths.width_sweep(TINY, trainer_in(tmp_path), seeds=1)
    page = widths.page(json.loads(json.dumps(document)))
    assert "| depth 2, resolution 1.3 | 1.00 | 18 | 3.31x |" in page


def test_a_verdict_needs_two_standard_errors() -> None:
    def said(*differences: float) -> str:
        pairs = widths.PAIRS[1:]
        rows = [
            {"target": 8.0, "depth": d, "resolution": r, "difference": x, "standard_error": 0.01}
            for (d, r), x in zip(pairs, differences, strict=True)
        ]
        document = {"targets": [5.0, 8.0], "at_equal_macs": rows}
        return widths.verdict({**document, "lines": [{"depth": 1.0, "resolution": 1.0}]})

    assert (
        said(0.019, -0.019, 0.0)
        == "no pair differs from the first one by more than two standard errors"
    )
    assert said(0.021, 0.0, 0.03) == (
        "depth 1, resolution 1.3 and depth 2, resolution 1.3 are better than depth 1, resolution 1"
    )
    assert said(0.0, -0.021, 0.0) == "depth 2, resolution 1 is worse than depth 1, resolution 1"
