"""Single against compound scaling, the power law, and the one look at the test pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effkernels import studies
from effkernels.studies import comparison, report
from effkernels.studies.statistics import at_equal_macs, mean_and_error, shares_of_wins
from studies import TINY, FakeTrainings, trainer_in


def test_each_way_scales_what_it_says() -> None:
    points = studies.points(targets=(2.0, 4.0))
    base = studies.small_config()
    base_macs = studies.Architecture(base).cost(10, 1).macs
    assert [p.way for p in points[::2]] == ["depth", "width", "resolution", "compound"]
    for point in points:
        config = point.architecture.config
        blocks = [stage.repeats for stage in config.stages]
        changed = {
            "depth": blocks != [stage.repeats for stage in base.stages],
            "width": config.head_channels != base.head_channels,
            "resolution": config.resolution != base.resolution,
        }
        wanted = set(changed) if point.way == "compound" else {point.way}
        assert {name for name, is_ in changed.items() if is_} == wanted
        assert point.macs == point.architecture.cost(10, 1).macs
        assert abs(np.log(point.macs / base_macs / point.target)) < np.log(1.25)
        assert config.resolution <= 28
    with pytest.raises(ValueError, match=r"targets must be ratios above 1, got \[0.5\]"):
        studies.points(targets=(0.5,))


def test_a_power_law_is_found_again() -> None:
    random = np.random.default_rng(0)
    errors = {
        macs: list(0.3 * (macs / 1e6) ** -0.12 * np.exp(random.normal(0, 0.01, 5)))
        for macs in (2e5, 4e5, 8e5, 16e5)
    }
    law = studies.fit_power_law(errors)
    assert law.exponent.low < 0.12 < law.exponent.high
    assert law.exponent.high - law.exponent.low < 0.05
    assert law.coefficient.low < 0.3 < law.coefficient.high
    exact = studies.fit_power_law({m: [0.3 * (m / 1e6) ** -0.12] * 3 for m in errors})
    assert exact.exponent.value == pytest.approx(0.12)
    assert exact.error(5e5) == pytest.approx(0.3 * 0.5**-0.12)
    assert exact.exponent.low == pytest.approx(exact.exponent.high)
    with pytest.raises(ValueError, match="needs networks of at least 2 costs, got 1"):
        studies.fit_power_law({1e6: [0.1]})
    with pytest.raises(ValueError, match="must be above 0"):
        studies.fit_power_law({1e6: [0.1], 2e6: [0.0]})


def test_accuracies_at_equal_macs() -> None:
    ratios = [1.5, 2.0, 3.0]
    means = [0.7 + 0.02 * np.log2(r) for r in ratios]
    assert at_equal_macs(means, ratios, 2.0) == pytest.approx([0.72] * 3)
    assert at_equal_macs([0.7, 0.8], [1.0, 2.0], 2.0) == [0.7, 0.8]  # no line through two
    assert mean_and_error([0.5]) == (0.5, None)
    assert mean_and_error([0.4, 0.6]) == pytest.approx((0.5, 0.1))


def test_shares_of_wins() -> None:
    sure = shares_of_wins({"a": [0.8, 0.81], "b": [0.7, 0.71]}, {"a": 0.0, "b": 0.0})
    assert sure == {"a": 1.0, "b": 0.0}
    moved = shares_of_wins({"a": [0.8, 0.81], "b": [0.7, 0.71]}, {"a": 0.0, "b": 0.2})
    assert moved == {"a": 0.0, "b": 1.0}
    unsure = shares_of_wins({"a": [0.8, 0.7], "b": [0.76, 0.76]}, {"a": 0.0, "b": 0.0})
    assert 0.2 < unsure["a"] < 0.3  # only where the first seed is drawn twice


def test_all_ways_start_at_the_base(tmp_path: Path, fake: FakeTrainings) -> None:
    document = studies.compare(TINY, trainer_in(tmp_path), targets=(2.0, 4.0), seeds=2)
    assert len(document["rows"]) == 8
    assert set(document["power_laws"]) == {"depth", "width", "resolution", "compound"}
    for law in document["power_laws"].values():
        # The fake trainings keep error = 0.3 * MACs^-0.1, but for 1 % of luck.
        assert law["exponent"]["value"] == pytest.approx(0.1, abs=0.04)
    page = comparison.page(json.loads(json.dumps(document)))
    assert "| compound |" in page
    assert "| EfficientNet-B0 | compound | 1.8B | 81.1 | 7 |" in page
    assert "| MobileNetV1 | width | 2.2B | 74.2 | 3 |" in page
    figure = pytest.importorskip("matplotlib.figure").Figure()
    comparison.draw(document, figure)
    ours, published = figure.axes
    assert {text.get_text() for text in published.texts} == {
        row["network"] for row in document["published"]
    }
    drawn = {
        (round(float(line.get_xdata()[-1]), 6), line.get_ydata()[-1])
        for line in published.lines
        if len(line.get_xdata())
    }
    assert drawn == {(row["macs"] / 1e9, row["top1"]) for row in document["published"]}
    assert len(ours.get_legend().get_texts()) == 4
    with pytest.raises(ValueError, match="seeds must be at least 2"):
        studies.compare(TINY, trainer_in(tmp_path), seeds=1)


def selected(folder: Path) -> None:
    trainer = trainer_in(folder)
    document = studies.compare(TINY, trainer, targets=(2.0,), seeds=2)
    (folder / "comparison.json").write_text(json.dumps(document))
    row = {"name": "1, 1.4, 1", "network": document["rows"][1]["network"]}
    paper = {"name": "1.2, 1.1, 1.15", "network": document["rows"][3]["network"]}
    same = {"study": "grid", "setting": document["setting"], "base": document["base"]}
    (folder / "grid.json").write_text(json.dumps({**same, "rows": [row], "paper": paper}))


def test_the_test_pictures_are_looked_at_once(tmp_path: Path, fake: FakeTrainings) -> None:
    with pytest.raises(ValueError, match=r"grid\.json is needed first: .*'effkernels study grid'"):
        studies.judge(tmp_path, TINY, trainer_in(tmp_path))
    selected(tmp_path)
    fake.keys.clear()
    document = studies.judge(tmp_path, TINY, trainer_in(tmp_path), seeds=2)
    names = [row["name"] for row in document["rows"]]
    assert names == ["base", "grid search: 1, 1.4, 1", "the paper's: 1.2, 1.1, 1.15",
                     "depth alone", "width alone", "resolution alone"]  # fmt: skip
    # Width alone is the network of the fake grid search: it is trained once.
    assert len(fake.keys) == 5 * 2
    (tmp_path / "final.json").write_text(json.dumps(document))
    assert studies.judge(tmp_path, TINY, trainer_in(tmp_path), seeds=2) == document
    with pytest.raises(ValueError, match="the test pictures have judged other networks already"):
        studies.judge(tmp_path, TINY, trainer_in(tmp_path), seeds=3)
    (tmp_path / "grid.json").write_text("{}")
    with pytest.raises(ValueError, match="a study's JSON lacks 'setting'"):
        studies.judge(tmp_path, TINY, trainer_in(tmp_path), seeds=2)
    (tmp_path / "grid.json").write_text("{")
    with pytest.raises(ValueError, match=r"grid\.json is damaged"):
        studies.judge(tmp_path, TINY, trainer_in(tmp_path), seeds=2)


def test_files_of_a_study(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    def draw(figure: Any) -> None:
        figure.subplots().plot([1, 2])

    document = {"study": "some", "values": [0.123456789, 1], "inner": {"x": (2.0,)}}
    paths = report.write(document, "# Some\n\n", draw, tmp_path / "new")
    assert [p.name for p in paths] == ["some.json", "some.md", "some.png"]
    assert json.loads(paths[0].read_text())["values"] == [0.123457, 1]
    assert paths[1].read_text() == "# Some\n"
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [p.name for p in paths]
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write into"):
        report.write(document, "", draw, tmp_path / "file")
