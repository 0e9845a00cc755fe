"""``effkernels study``: the files of each study, and one line for what does not do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import effkernels.studies.store
from command_line import Run
from processes import run_python
from studies import FakeTrainings, colours

TINY = ("--pictures", 100, "--held-out", 100)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTrainings:
    """In the place of trainings and pictures."""
    made = FakeTrainings()
    monkeypatch.setattr("os.fsync", lambda file: None)  # hundreds of them
    monkeypatch.setattr(effkernels.studies.store, "train_network", made)
    monkeypatch.setattr(effkernels.studies.store, "Pictures", lambda setting: None)
    return made


def test_all_studies_in_one_folder(tmp_path: Path, run: Run, fake: FakeTrainings) -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("matplotlib")
    for which, name, more in (
        ("grid", "grid", ("--seeds", 2, "--step", 0.5, "--tolerance", 0.3)),
        (
            "grid",
            "grid_macs",
            ("--seeds", 2, "--step", 0.5, "--tolerance", 0.3, "--constraint", "macs"),
        ),
        ("compare", "comparison", ("--seeds", 2, "--targets", "2,4")),
        ("widths", "widths", ("--targets", "5")),
        ("search", "search", ("--times", 4, "--budget", 20)),
        ("mnas", "mnas", ("--budget", 2)),
        ("final", "final", ("--seeds", 2)),
        ("figures", "figures", ()),
    ):
        done = run("study", which, "--output", tmp_path, *more)
        assert done.exit_code == 0, done.stderr
        document = json.loads((tmp_path / f"{name}.json").read_text())
        assert document["study"] == name
        page = (tmp_path / f"{name}.md").read_text()
        assert f"]({name}.png)" in page
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert page.splitlines()[0] in done.stdout
        if name not in ("grid_macs", "comparison"):
            continue
        trained = len(fake.keys)
        again = run("study", which, "--output", tmp_path, "--json", *more)
        assert json.loads(again.stdout)["study"] == name
        assert len(fake.keys) == trained
    # Compound scaling was by the triple that the grid search had found.
    grid = json.loads((tmp_path / "grid.json").read_text())
    assert json.loads((tmp_path / "comparison.json").read_text())["triple"] == grid["best"]


def test_time_that_is_over(tmp_path: Path, run: Run, fake: FakeTrainings) -> None:
    stopped = run("study", "compare", "--output", tmp_path, "--minutes", 0)
    assert stopped.exit_code == 3
    assert stopped.stdout.endswith("trainings are left: the same command goes on\n")
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("grid", "--tolerance", 0), "tolerance must be above 0, got 0"),
        (("grid", "--constraint", "flops"), "constraint must be one of nominal, macs, memory"),
        (("grid", "--target", 0.5), "target must be finite and at least 1, the base itself, got 0.5"),
        (("grid", "--target", 500), "the grid is empty: no triple has a nominal ratio of 500"),
        (("grid", "--pruner", "all"), "pruner must be one of halving, median, none, got 'all'"),
        (("grid", "--seeds", 1), "seeds must be at least 2"),
        (("grid", "--pictures", 1), "--pictures must be a whole number of at least 2, got 1"),
        (("grid", "--epochs", 0), "--epochs must be at least 1, got 0"),
        (("grid", "--data", "photos/"), "--data must be 'fashion-mnist', 'fashion-mnist:FOLDER' or a folder"),
        (("grid", "--split-seed", -1), "--split-seed must be a whole number of at least 0, got -1"),
        (("grid", "--minutes", -1), "--minutes must be at least 0, got -1"),
        (("compare", "--triple", "1.2"), "--triple must be alpha,beta,gamma such as 1.2,1.1,1.15"),
        (("compare", "--triple", "0.5,1,1"), "alpha must be finite and at least 1, got 0.5"),
        (("compare", "--targets", "2,x"), "--targets must be ratios of MACs such as 1.5,2,3,4"),
        (("widths", "--targets", "2"), "targets must be above 3.31, the MACs of depth 2 and resolution 1.3"),
        (("search", "--budget", 1), "budget must be from 2 to below the 216 networks of the space"),
        (("search", "--cost", "flops"), "--cost must be macs or latency, got 'flops'"),
        (("mnas", "--budget", 1), "budget must be at least 2 networks, got 1"),
        (("final",), "grid.json is needed first: No such file or directory"),
    ],
)  # fmt: skip
def test_errors(
    tmp_path: Path, run: Run, fake: FakeTrainings, arguments: tuple[object, ...], message: str
) -> None:
    pytest.importorskip("optuna")
    done = run("study", *arguments, "--output", tmp_path)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("effkernels: ")
    assert message in line
    assert not fake.keys


def test_a_study_of_a_folder_states_its_cost(tmp_path: Path, run: Run, fake: FakeTrainings) -> None:
    pytest.importorskip("matplotlib")
    folder = colours(tmp_path / "data")
    options = ("--data", folder, "--pictures", 50, "--held-out", 10, "--output", tmp_path / "out")
    options = (*options, "--small")
    done = run("study", "mnas", *options, "--budget", 2)
    assert done.exit_code == 0, done.stderr
    # Two networks for each of two searches, the base as a search would see it, and three networks for two judges.
    assert done.stderr.startswith("to do: up to 11 trainings, ")
    assert done.stderr.endswith(
        "multiply-accumulates; how long that takes is known after the first\n"
    )
    assert "50 pictures of a folder (" in done.stdout
    again = run("study", "mnas", *options, "--budget", 2)
    assert again.stderr == "", "nothing is left to do"


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("cats",), "at least two; found only 'cats'"),
        (("a", "b"), "2 of 2 classes have no pictures"),
    ],
)
def test_folders_that_do_not_do(
    tmp_path: Path, run: Run, classes: tuple[str, ...], said: str
) -> None:
    for name in classes:
        (tmp_path / "data" / name).mkdir(parents=True)
    done = run("study", "compare", "--data", tmp_path / "data", "--output", tmp_path / "out")
    assert said in done.error


def test_data_that_is_not_there(tmp_path: Path, run: Run) -> None:
    done = run("study", "compare", "--output", tmp_path, "--data", f"fashion-mnist:{tmp_path}")
    assert f"no train-images-idx3-ubyte in {tmp_path}: apt-get install dataset-fashion-mnist" in (
        done.error
    )


def test_optuna_is_imported_where_it_is_needed(
    tmp_path: Path, run: Run, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys, effkernels.studies; print({'optuna', 'matplotlib'} & set(sys.modules))"
    assert run_python("-c", code).stdout == "set()\n"
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = run("study", "grid", "--output", tmp_path)
    assert done.exit_code == 2
    assert done.stderr == (
        "effkernels: the grid search needs optuna, which is not installed: "
        'pip install "effkernels[studies]"\n'
    )
