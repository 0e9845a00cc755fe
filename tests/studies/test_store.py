"""What is trained is trained once, by however many processes, whenever they are killed."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

import effkernels.studies.store
from effkernels import studies
from studies import TINY, FakeTrainings, trainer_in


def trainings(count: int) -> list[studies.Training]:
    network = studies.Architecture(studies.small_config())
    return [studies.Training(network, TINY, seed) for seed in range(count)]


def test_nothing_is_trained_twice(tmp_path: Path, fake: FakeTrainings) -> None:
    wanted = trainings(3)
    first = trainer_in(tmp_path).results([*wanted, wanted[0]])
    assert [row["seed"] for row in first] == [0, 1, 2, 0]
    assert len(fake.keys) == 3
    seen: list[tuple[int, int]] = []
    watched = trainer_in(tmp_path, watch=lambda done, all_: seen.append((done, all_)))
    assert watched.results(trainings(4))[:3] == first[:3]
    assert len(fake.keys) == 4
    assert seen[0] == (3, 4)
    assert seen[-1] == (4, 4)
    assert len(studies.Store(tmp_path / "trainings.jsonl")) == 4


def test_a_line_that_was_cut_off(tmp_path: Path, fake: FakeTrainings) -> None:
    trainer_in(tmp_path).results(trainings(2))
    path = tmp_path / "trainings.jsonl"
    whole = path.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 40):
        path.write_bytes(whole[:cut])
        assert len(studies.Store(path)) == 1
        trainer_in(tmp_path).results(trainings(2))
        assert path.read_bytes() == whole
    for cut in (0, 5):  # of the first line
        path.write_bytes(whole[:cut])
        trainer_in(tmp_path).results(trainings(2))
        assert path.read_bytes() == whole


def test_files_that_are_no_stores(tmp_path: Path, fake: FakeTrainings) -> None:
    path = tmp_path / "trainings.jsonl"
    path.write_text("some text")
    with pytest.raises(ValueError, match="is no store of trainings"):
        studies.Store(path)
    path.write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match="is no store of trainings"):
        studies.Store(path)
    path.unlink()
    trainer_in(tmp_path).results(trainings(1))
    path.write_bytes(path.read_bytes() + b"{damaged}\n")
    with pytest.raises(ValueError, match="is damaged"):
        studies.Store(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        studies.Store(path)


def test_time_that_is_over(tmp_path: Path, fake: FakeTrainings) -> None:
    with pytest.raises(
        studies.OutOfTime, match="2 or more trainings are left: the same command goes on"
    ):
        trainer_in(tmp_path, seconds=0.0).results(trainings(2))
    assert not fake.keys
    trainer_in(tmp_path, seconds=60.0).results(trainings(2))
    trainer_in(tmp_path, seconds=0.0).results(trainings(2))  # nothing is left to do


def test_claims_of_one_process(tmp_path: Path) -> None:
    store = studies.Store(tmp_path / "trainings.jsonl")
    key = trainings(1)[0].key
    with store.claimed(key) as free, store.alone():
        assert free
    with store.claimed(key) as free:
        assert free


def work(folder: Path, count: int) -> None:
    """Trains in 0.05 s each, and writes down each begin."""

    def train(training: studies.Training, pictures: object) -> dict[str, Any]:
        with (folder / "begun").open("a") as file:
            file.write(f"{training.seed}\n")
        time.sleep(0.05)
        return {"accuracy": training.seed / 1000, "macs": 1, "params": 1}

    effkernels.studies.store.train_network = train
    results = trainer_in(folder).results(trainings(count))
    assert [row["accuracy"] for row in results] == [seed / 1000 for seed in range(count)]


def test_processes_share_a_store_and_may_be_killed(tmp_path: Path) -> None:
    forked = multiprocessing.get_context("fork")  # importing torch again would take seconds
    first, second = (forked.Process(target=work, args=(tmp_path, 20)) for _ in range(2))
    first.start()
    second.start()
    begun = tmp_path / "begun"
    end = time.monotonic() + 60
    while not begun.exists() or len(begun.read_text().split()) < 6:
        assert time.monotonic() < end
        time.sleep(0.01)
    first.kill()
    first.join()
    second.join(60)
    assert second.exitcode == 0
    # All once; and once more at most one, which the killed process had begun.
    seeds = begun.read_text().split()
    assert len(set(seeds)) == 20
    assert len(seeds) <= 21
    assert len(studies.Store(tmp_path / "trainings.jsonl")) == 20
