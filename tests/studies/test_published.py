"""The paper's Figures 1 and 5: what is drawn is Table 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effkernels.analysis.paper import TABLE_2
from effkernels.studies import published
from source_tree import ROOT


def test_every_row_of_table_2_is_drawn(tmp_path: Path) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    document = json.loads(json.dumps(published.figures()))
    assert [row["network"] for row in document["rows"]] == [row.network for row in TABLE_2]
    own = [row for row in document["rows"] if row["efficientnet"]]
    assert [row["top1"] for row in own] == [77.1, 79.1, 80.1, 81.6, 82.9, 83.6, 84.0, 84.3]
    for row in own:
        assert row["our_params"] == pytest.approx(row["params"], rel=0.02)
        assert row["our_macs"] == pytest.approx(row["flops"], rel=0.06)
    figure = figures.Figure()
    published.draw(document, figure)
    first, fifth = figure.axes
    assert [len(line.get_xdata()) for line in first.lines] == [8, 16]
    assert [len(line.get_xdata()) for line in fifth.lines] == [
        8,
        15,
    ]  # GPipe's FLOPs are not printed
    assert sorted(first.lines[1].get_xdata())[-1] == pytest.approx(557)
    assert {text.get_text() for text in first.texts} == {
        row.network.removeprefix("EfficientNet-") for row in TABLE_2
    }


def test_the_stored_figures_are_those_of_the_table() -> None:
    stored = json.loads((ROOT / "docs/studies/figures.json").read_text())
    assert stored == json.loads(json.dumps(published.figures()))
    page = (ROOT / "docs/studies/figures.md").read_text()
    assert page == published.page(stored) + "\n"
    assert "| GPipe | 84.3 | 557M | not printed |" in page
