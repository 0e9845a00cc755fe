"""``effkernels study``: the files of each study, and one line for what does not do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import effkernels.studies.store
from command_line import Run
from effkernels.models.config_file import write_config
from oracles import oracle
from studies import FakeTrainings, colours, little

TINY = ("--pictures", 100, "--held-out", 100)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTrainings:
    """In the place of trainings and pictures."""
    made = FakeTrainings()
    monkeypatch.setattr("os.fsync", lambda file: None)  # hundreds of them
    monkeypatch.setattr(effkernels.studies.store, "train_network", made)
    monkeypatch.setattr(effkernels.studies.store, "Pictures", lambda setting: None)
    return made


@pytest.mark.slow
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
        if name != "grid_macs":
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


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Options of a study at full size."""
    made = tmp_path_factory.mktemp("data")
    colours(made / "train", 20, (60, 48))
    write_config(little(), made / "little.json")
    return ("--data", made, "--base", made / "little.json", "--epochs", 1, "--batch-size", 8,
            "--workers", 0, "--device", "cpu")  # fmt: skip


@pytest.mark.slow
def test_a_study_at_full_size(tmp_path: Path, run: Run, full: tuple[object, ...]) -> None:
    oracle("torchvision")
    pytest.importorskip("matplotlib")
    options = ("compare", *full, "--targets", "2", "--seeds", 2, "--output", tmp_path)
    said = run("study", *options, "--dry-run")
    assert (said.exit_code, said.stdout) == (0, "")
    lines = said.stderr.splitlines()
    assert lines[0].startswith("to do: up to 10 trainings, ")
    assert lines[-1].startswith("to do: time: about ")
    assert not list(tmp_path.glob("*.json*"))
    done = run("study", *options)
    assert done.exit_code == 0, done.stderr
    assert "little at 32 pixels, scaled. Each training: 32 pictures of a folder (" in done.stdout
    document = json.loads((tmp_path / "comparison.json").read_text())
    assert document["setting"]["base"] == {"name": "little", "resolution": 32}
    assert len((tmp_path / "trainings.jsonl").read_text().splitlines()) == 1 + 10
    assert run("study", *options).stderr == "", "nothing is left to do"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("search",), "'study search' searches among small networks alone: pass --small"),
        (("compare", "--small"), "--small and --base contradict each other"),
        (("compare", "--base", "efficientnet_b0"), "--resolution must be at most 48, the pictures' own, got 224"),
        (("compare", "--base", "efficientnet_b99"), "no model named 'efficientnet_b99'"),
        (("compare", "--resolution", 48), "48 pixels of the pictures' 48"),
        (("compare", "--resolution", 0), "--resolution must be at least 1, got 0"),
        (("compare", "--recipe", "best"), "recipe must be one of paper, sgd, adamw, transfer"),
        (("compare", "--held-out", 39), "--held-out must be at least 2 and leave a batch of 8"),
        (("compare", "--device", "toaster"), "is no device"),
        (("compare", "--workers", -1), "--workers must be at least 0, got -1"),
        (("widths", "--resolution", 40), "makes pictures larger than their own 48 pixels"),
        (("cam",), "at most 48, the pictures' own, got 64"),
    ],
)  # fmt: skip
def test_what_does_not_do_at_full_size(
    tmp_path: Path, run: Run, full: tuple[object, ...], arguments: tuple[object, ...], said: str
) -> None:
    which, *more = arguments
    done = run("study", which, *full, *more, "--output", tmp_path / "out")
    assert said in done.error
    assert not list(tmp_path.rglob("trainings.jsonl"))


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


def test_without_optuna_the_error_is_one_line(
    tmp_path: Path, run: Run, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = run("study", "grid", "--output", tmp_path)
    assert done.exit_code == 2
    assert done.stderr == (
        "effkernels: the grid search needs optuna, which is not installed: "
        'pip install "effkernels[studies]"\n'
    )
