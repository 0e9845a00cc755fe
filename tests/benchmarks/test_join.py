"""Partial reports, as `benchmarks/gpu.sh` leaves them, are joined into one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.join import joined, main
from benchmarks.report.results import Report, Row


def test_the_row_with_the_most_contestants_is_kept(
    make_report: Callable[..., Report], network_row: Row
) -> None:
    few = replace(network_row, outcomes=network_row.outcomes[:2])
    other = replace(network_row, key="another", title="another")
    parts = [make_report(few, other), make_report(network_row)]
    parts[1].settings["full"] = True
    report = joined(parts)
    assert report.rows == [network_row, other]
    assert report.settings["full"]
    assert report.limits == parts[0].limits


def test_files_become_one_folder(
    make_report: Callable[..., Report], network_row: Row, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        part = make_report(replace(network_row, key=name, title=f"case {name}"))
        part.save(tmp_path / name / "report.json")
    parts = [str(tmp_path / name / "report.json") for name in ("one", "two")]
    assert main([str(tmp_path / "all"), *parts]) == 0
    assert len(Report.load(tmp_path / "all" / "report.json").rows) == 2
    text = (tmp_path / "all" / "report.md").read_text()
    assert "case one" in text
    assert "case two" in text


@pytest.mark.parametrize("what", ["commit", "type"])
def test_parts_of_different_runs_are_refused(
    make_report: Callable[..., Report], network_row: Row, what: str
) -> None:
    one, two = make_report(network_row), make_report(network_row)
    if what == "commit":
        two.machine = {**two.machine, "commit": "fedcba987654"}
    else:
        two.settings = {**two.settings, "type": "float16"}
    with pytest.raises(ValueError, match=f"belong together: {what} was"):
        joined([one, two])
