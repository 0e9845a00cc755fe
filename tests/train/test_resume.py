"""A training that was interrupted goes on to the bit where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from effkernels import train
from effkernels.checkpoints import read_state_dict
from effkernels.train import state
from oracles import oracle
from training import make_job

RANDOM = {"crop": "random", "augment": "trivialaugment", "erase": 0.5, "mixup": 0.3, "cutmix": 0.5}


class StopError(RuntimeError):
    pass


class StopAt(train.Watch):
    """Stops a training within its ``last``-th step."""

    def __init__(self, last: int) -> None:
        self.left = last

    def step(self, pictures: int, loss: float | None) -> None:
        self.left -= 1
        if self.left == 0:
            raise StopError


def left_by(job: train.Job) -> dict[str, Any]:
    """All tensors that a training left, by name, and its history without times."""
    found = state.load(job.output / state.RESUME)
    tensors: dict[str, Any] = {}
    for part in ("model", "average"):
        tensors |= {f"{part}.{name}": value for name, value in found.tensors[part].items()}
    for index, values in found.tensors["optimizer"]["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    history = [
        {name: value for name, value in row.items() if "second" not in name}
        for row in found.history
    ]
    return {**tensors, "history": history, "position": replace(found.position, seconds=0.0)}


def weights_in(folder: Path) -> dict[str, Any]:
    return dict(read_state_dict(folder / state.WEIGHTS).state_dict)


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        tensor = isinstance(value, torch.Tensor)
        assert torch.equal(value, theirs[name]) if tensor else value == theirs[name], name


@pytest.mark.parametrize("workers", [0, 2])
def test_interrupted_anywhere_it_ends_the_same(
    pictures: Path, tmp_path: Path, workers: int
) -> None:
    oracle("torchvision")
    job = make_job(
        pictures, tmp_path / "whole", drop_path=0.2, dropout=0.3, workers=workers, **RANDOM
    )
    whole = train.run(job)
    assert len(whole.history) == 2  # of five steps
    # Before anything is saved, at the end of an epoch, and after a saving within the second one.
    for last in (1, 5, 9) if workers == 0 else (3,):
        again = replace(job, output=tmp_path / f"stopped-{last}", resume=True)
        with pytest.raises(StopError):
            train.run(again, StopAt(last))
        train.run(again)
        assert_same(left_by(again), left_by(job))
        assert_same(weights_in(again.output), weights_in(job.output))


def test_kept_moments_matter(pictures: Path, tmp_path: Path) -> None:
    """Of other seeds, the comparison finds the difference."""
    jobs = [
        make_job(pictures, tmp_path / str(seed), seed=seed, drop_path=0.2, epochs=1)
        for seed in (0, 1)
    ]
    ours, theirs = (left_by(replace(job, resume=True)) for job in jobs if train.run(job))
    with pytest.raises(AssertionError):
        assert_same(ours, theirs)


@pytest.mark.slow  # three processes that import PyTorch
def test_killed_it_goes_on(pictures: Path, tmp_path: Path) -> None:
    def command(output: str) -> list[str]:
        return [
            *(sys.executable, "-m", "effkernels.cli", "train", "--data", str(pictures)),
            *("--model", "efficientnet_lite0", "--recipe", "sgd", "--epochs", "8", "--lr", "0.001"),
            *(
                "--warmup-epochs",
                "0",
                "--augment",
                "none",
                "--crop",
                "centre",
                "--resolution",
                "32",
            ),
            *(
                "--mixup",
                "0",
                "--cutmix",
                "0",
                "--erase",
                "0",
                "--width",
                "0.25",
                "--depth",
                "0.25",
            ),
            *("--batch-size", "4", "--save-every", "2", "--output", str(tmp_path / output)),
            *("--device", "cpu", "--workers", "0", "--resume"),
        ]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(command("killed"), cwd=tmp_path, env=environment)
    log = tmp_path / "killed" / "log.csv"
    while killed.poll() is None and not log.exists():
        time.sleep(0.02)
    time.sleep(0.2)
    assert killed.poll() is None, "it ended before it could be killed"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    lines = len(log.read_text().splitlines())
    assert 2 <= lines <= 8
    for output in ("killed", "whole"):
        done = subprocess.run(command(output), cwd=tmp_path, env=environment, timeout=240)
        assert done.returncode == 0
    ours, theirs = (left_by(make_job(pictures, tmp_path / name)) for name in ("killed", "whole"))
    assert_same(ours, theirs)
    assert_same(weights_in(tmp_path / "killed"), weights_in(tmp_path / "whole"))


def test_an_existing_training_is_not_overwritten(pictures: Path, tmp_path: Path) -> None:
    job = make_job(pictures, tmp_path, epochs=1)
    train.run(job)
    before = (tmp_path / state.RESUME).read_bytes()
    with pytest.raises(ValueError, match="exists: pass --resume to go on"):
        train.run(job)
    assert len(train.run(replace(job, resume=True)).history) == 1  # nothing is left to do
    assert (tmp_path / state.RESUME).read_bytes() == before


def test_other_arguments_are_refused(pictures: Path, tmp_path: Path) -> None:
    job = make_job(pictures, tmp_path, epochs=1)
    train.run(job)
    before = (tmp_path / state.RESUME).read_bytes()
    for other, said in (
        (make_job(pictures, tmp_path, epochs=3), "epochs=3 instead of 1"),
        (make_job(pictures, tmp_path, epochs=1, lr=0.1), "lr=0.1 instead of 0.001"),
        (replace(job, batch_size=3), "batch_size=3 instead of 4"),
        (replace(job, validation=str(pictures / "train")), "validation pictures="),
    ):
        with pytest.raises(ValueError, match=said):
            train.run(replace(other, resume=True))
    assert (tmp_path / state.RESUME).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\3\4 half of a zip"])
def test_a_damaged_state_is_one_line(pictures: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / state.RESUME).write_bytes(content)
    with pytest.raises(ValueError, match="is no state of a training, or damaged") as error:
        train.run(make_job(pictures, tmp_path, resume=True))
    assert "\n" not in str(error.value)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / state.RESUME
    kept = state.State({"a": 1}, state.Position(), {})
    state.save(kept, path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"which is as it was before: .*No space left"):
        state.save(state.State({"a": 2}, state.Position(), {}), path)
    assert state.load(path) == kept
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_disk_that_is_full_from_the_start(tmp_path: Path) -> None:
    (tmp_path / f".{state.RESUME}.partial").symlink_to("/dev/full")
    document = state.State({}, state.Position(), {"model": torch.zeros(100_000)})
    with pytest.raises(OSError, match=r"cannot write .*resume.pt, which is as it was before"):
        state.save(document, tmp_path / state.RESUME)
    assert list(tmp_path.iterdir()) == []
