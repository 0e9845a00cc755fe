"""Two processes learn what one with the doubled batch learns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from effkernels import train
from effkernels.train import state
from effkernels.train.building import load_trained
from effkernels.train.processes import Processes, from_environment
from training import MODEL, make_job

WORKER = Path(__file__).with_name("distributed_worker.py")
# Frozen BatchNorm, and nothing random.
STILL: dict[str, Any] = {
    "precision": "float64",
    "batch_norm": "running",
    "dropout": 0.0,
    "drop_path": 0.0,
    "epochs": 1,
}


@pytest.fixture(scope="module")
def two(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with what two processes have trained, named after BatchNorm's mode and the accumulated batches."""
    output = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(WORKER), str(pictures), str(output), "batch-1", "running-1", "running-2"],
        cwd=output,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return output


@pytest.mark.slow  # two processes import PyTorch
def test_all_processes_validate_what_is_saved(pictures: Path, two: Path) -> None:
    history = state.load(two / "batch-1" / state.RESUME).history
    weights = str(two / "batch-1" / state.WEIGHTS)
    built = load_trained(MODEL, weights, None, torch.device("cpu"), torch.float64)
    source = train.FolderSource(pictures / "val")
    assert built.classes is not None
    found = train.evaluate(built.model, source, range(3), built.classes)
    assert found.scores.loss == pytest.approx(history[-1]["loss"], rel=1e-9)


@pytest.mark.slow  # two processes import PyTorch
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_are_one_with_the_doubled_batch(
    pictures: Path, two: Path, tmp_path: Path, accumulate: int
) -> None:
    one = make_job(
        pictures, tmp_path / "one", batch_size=4 // accumulate, accumulate=accumulate, **STILL
    )
    result = train.run(one)
    found = state.load(two / f"running-{accumulate}" / state.RESUME)
    want = state.load(tmp_path / "one" / state.RESUME)
    assert len(want.history) == 1
    for part in ("model", "average"):
        for name, value in want.tensors[part].items():
            torch.testing.assert_close(
                found.tensors[part][name], value, rtol=1e-10, atol=1e-10, msg=f"{part} {name}"
            )
    # It did learn, in five steps; and validation adds up over both.
    assert want.tensors["scheduler"]["last_epoch"] == 5
    for name in ("train_loss", "loss", "top1"):
        assert found.history[0][name] == pytest.approx(result.history[0][name], rel=1e-9)


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert from_environment() == Processes(0, 1, 0, 1)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert from_environment() == Processes(5, 8, 1, 4)
    assert not from_environment().first


def test_sync_bn_needs_gpus(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--sync-bn needs GPUs"):
        make_job(pictures, tmp_path, sync_bn=True)
