"""The grid search: which triples are candidates, how Optuna stops them, and what goes on after an interruption."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from effkernels import studies
from effkernels.studies import grid_study
from effkernels.studies.grids import PAPER, reference
from studies import TINY, FakeTrainings, trainer_in

optuna = pytest.importorskip("optuna")


def nominal() -> list[studies.Candidate]:
    return studies.candidates(studies.grid(0.1))


def run(folder: Path, **options: Any) -> dict[str, Any]:
    found = options.pop("candidates", None) or nominal()[:4]
    trainer = trainer_in(folder, seconds=options.pop("seconds", None))
    usual = {"constraint": "nominal", "target": 2.0, "tolerance": 0.1, "seeds": 4}
    return studies.grid_search(found, TINY, trainer, folder / "grid.db", **(usual | options))


def test_candidates_by_the_nominal_product() -> None:
    found = nominal()
    kept = [t for t in studies.grid(0.1) if abs(t.nominal - 2) <= 0.1 + 1e-9]
    assert sorted(t for c in found for t in c.triples) == sorted(kept)
    networks = [str(c.architecture.to_json()) for c in found]
    assert len(set(networks)) == len(networks) < len(kept)
    base = studies.Triple(1.0, 1.0, 1.0).apply().cost(10, 1).macs
    for candidate in found:
        macs = candidate.triple.apply().cost(10, 1).macs
        assert candidate.ratios["macs"] == macs / base
        assert all(t.apply() == candidate.architecture for t in candidate.triples)
    distances = [abs(c.triple.nominal - 2) for c in found]
    assert distances == sorted(distances)


def test_candidates_by_what_is_realised() -> None:
    for kind in ("macs", "memory"):
        found = studies.candidates(studies.grid(0.1), kind, tolerance=0.05)  # type: ignore[arg-type]
        assert found
        assert all(abs(c.ratios[kind] - 2) <= 0.05 for c in found)
    # "Latency" of pixels alone: only gamma counts.
    pixels = studies.candidates(
        studies.grid(0.2), "latency", measured=lambda a: a.config.resolution**2
    )
    assert {c.architecture.config.resolution for c in pixels} == {20}
    assert studies.latency(studies.Triple(1.0, 1.0, 1.0).apply()) > 0


def test_the_papers_triple_here() -> None:
    paper = reference(PAPER)
    assert paper.triple.nominal == pytest.approx(1.9203, abs=1e-4)
    assert paper.ratios["macs"] > 2.1  # rounding up of depth costs more than it says


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.0}, "tolerance must be above 0, got 0"),
        ({"target": 0.5}, "target must be finite and at least 1, the base itself, got 0.5"),
        ({"constraint": "flops"}, "constraint must be one of nominal, macs, memory, latency, got 'flops'"),
        ({"constraint": "macs", "target": 90.0}, "the grid is empty: no triple has a macs ratio of 90"),
        ({"tolerance": 1e-9, "target": 1.9999}, "the grid is empty"),
    ],
)  # fmt: skip
def test_constraints_that_do_not_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        studies.candidates(studies.grid(0.2), **options)


def test_grids_that_do_not_do() -> None:
    with pytest.raises(ValueError, match=r"step must be from 0\.01 to 1, got 0"):
        studies.grid(0.0)
    with pytest.raises(ValueError, match=r"alpha must be finite and at least 1, got 0\.9"):
        studies.Triple(0.9, 1.0, 1.0)


def test_the_worse_half_is_stopped(tmp_path: Path, fake: FakeTrainings) -> None:
    document = run(tmp_path, candidates=nominal()[:7])
    counts = [len(row["accuracies"]) for row in document["rows"]]
    assert len(counts) == 7
    assert max(counts) == 4
    assert min(counts) == 1
    # The networks beside the candidates have all seeds.
    assert len(fake.keys) == sum(counts) + 8
    whole = [row for row in document["rows"] if len(row["accuracies"]) == 4]
    assert document["best"] == document["rows"][0]["triple"]
    assert document["rows"][0]["mean_at_equal_macs"] == max(r["mean_at_equal_macs"] for r in whole)
    assert sum(row["share_of_wins"] for row in whole) == pytest.approx(1)
    # The fake accuracy is a function of MACs: at equal ones little is left of the differences.
    raw = [row["mean"] for row in whole]
    moved = [row["mean_at_equal_macs"] for row in whole]
    assert max(moved) - min(moved) < max(max(raw) - min(raw), 0.011)
    page = grid_study.page(document)
    assert "| the paper's: 1.2, 1.1, 1.15 | 1.92 |" in page


def test_accuracies_at_equal_macs_are_not_moved(tmp_path: Path, fake: FakeTrainings) -> None:
    found = studies.candidates(studies.grid(0.1), "macs")[:3]
    document = run(tmp_path, candidates=found, constraint="macs", seeds=2, pruner="none")
    assert document["study"] == "grid_macs"
    assert all(row["mean_at_equal_macs"] == row["mean"] for row in document["rows"])


def test_it_goes_on_where_it_stopped(
    tmp_path: Path, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    expected = list(fake.keys)
    fake.keys.clear()
    with pytest.raises(studies.OutOfTime):
        run(tmp_path, seconds=0.0)
    assert not fake.keys

    # A process is killed: its trial stays "running" in the study.
    def killed(training: studies.Training, pictures: Any) -> dict[str, Any]:
        if len(fake.keys) == 3:
            raise KeyboardInterrupt
        return fake(training, pictures)

    monkeypatch.setattr("effkernels.studies.store.train_network", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert len(fake.keys) == 3
    monkeypatch.setattr("effkernels.studies.store.train_network", fake)
    assert run(tmp_path) == whole
    assert sorted(fake.keys) == sorted(expected)
    assert run(tmp_path) == whole
    assert len(fake.keys) == len(expected)
    # What other studies have trained changes nothing.
    found = nominal()[:4]
    more = [studies.Training(c.architecture, TINY, seed) for c in found for seed in range(4)]
    trainer_in(tmp_path).results(more)
    (tmp_path / "grid.db").unlink()
    assert run(tmp_path) == whole


def test_studies_that_do_not_do(tmp_path: Path, fake: FakeTrainings) -> None:
    run(tmp_path)
    with pytest.raises(ValueError, match=r"grid\.db is a study of other candidates"):
        run(tmp_path, seeds=3)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "grid.db").write_text("no database " * 100)
    with pytest.raises(ValueError, match=r"cannot be used as an Optuna study: .*not a database"):
        run(tmp_path / "text")
    (tmp_path / "other").mkdir()
    optuna.create_study(study_name="mine", storage=f"sqlite:///{tmp_path / 'other' / 'grid.db'}")
    with pytest.raises(ValueError, match=r"is a study of something else \('mine'\)"):
        run(tmp_path / "other")
    with pytest.raises(ValueError, match="pruner must be one of halving, median, none, got 'all'"):
        run(tmp_path, pruner="all")
    with pytest.raises(ValueError, match="seeds must be at least 2"):
        run(tmp_path, seeds=1)


def test_a_locked_study(
    tmp_path: Path, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effkernels.studies.halving._LOCKED_SECONDS", 0.1)
    run(tmp_path)
    holder = sqlite3.connect(tmp_path / "grid.db")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ValueError, match=r"grid\.db .* another process keeps it locked"):
        run(tmp_path)
    holder.rollback()
    holder.close()
    run(tmp_path)


def test_other_pruners(tmp_path: Path, fake: FakeTrainings) -> None:
    none = run(tmp_path / "none", pruner="none")
    assert all(len(row["accuracies"]) == 4 for row in none["rows"])
    median = run(tmp_path / "median", pruner="median", candidates=nominal()[:7])
    assert any(len(row["accuracies"]) < 4 for row in median["rows"])
