"""Trains networks on pictures at their full size, read from their files: by the loop of ``effkernels train``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from effkernels.models import EfficientNet
from effkernels.studies.setting import Setting, check_classes
from effkernels.studies.training import Training
from effkernels.timing import device_name
from effkernels.train.building import new_model
from effkernels.train.job import Job
from effkernels.train.loading import Batch, Pictures, ValidationBatches, loader
from effkernels.train.loop import run
from effkernels.train.processes import Processes
from effkernels.train.randomness import SPLIT, SUBSET, derive
from effkernels.train.sources import Source, Subset
from effkernels.train.splits import Data, check_every_class, choose
from effkernels.train.validation import validate
from effkernels.train.watching import Watch

_TIMED_STEPS = 3
"""Of which the first warms up, where there are so many."""


def _ignore(said: object) -> None:
    pass


@dataclass(frozen=True)
class Machine:
    """Where networks at full size are trained.

    Args:
        device: a torch device.
        workers: processes that read pictures; 0 to read them between the steps.
        note: is told, once each, of pictures that cannot be read.
        progress: is told the share of a training that is done.
        bad_pictures: how many pictures that cannot be read a training skips before it stops.
    """

    device: torch.device = field(default=torch.device("cpu"))
    workers: int = 0
    note: Callable[[str], object] = field(default_factory=lambda: _ignore)
    progress: Callable[[float], object] = field(default_factory=lambda: _ignore)
    bad_pictures: int = Job.bad_pictures

    @property
    def name(self) -> str:
        """Of what computes; on a processor with the number of threads."""
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{device_name(self.device)}{threads}"


class FullPictures:
    """The pictures of a setting at full size; opened here, read when they are trained on.

    Args:
        setting: which of them.

    Raises:
        ValueError: they are missing, or a class has none to train on.
    """

    channels = 3

    def __init__(self, setting: Setting) -> None:
        source, seed = setting.source, setting.split_seed
        held, kept = choose(source, setting.held_out, derive(seed, SPLIT), "--held-out")
        if setting.pictures < len(kept):
            within, _ = choose(
                Subset(source, kept), setting.pictures, derive(seed, SUBSET), "--pictures"
            )
            kept = [kept[index] for index in within]
        check_every_class(
            source, kept, f"--held-out {setting.held_out} and --pictures {setting.pictures} leave"
        )
        self.setting, self.classes = setting, source.classes
        self.data = Data(Subset(source, kept), Subset(source, held))

    @cached_property
    def test(self) -> Source:
        """Those that judge what was selected.

        Raises:
            ValueError: there are none, or they are of other classes.
        """
        source = self.setting.test_source
        check_classes(self.classes, source)
        return source

    def held_out(self, resolution: int, indices: Sequence[int]) -> Tensor:
        """Some of those that select, as a network of this resolution takes them: (N, 3, H, W) float32.

        Raises:
            ValueError: one cannot be read.
        """
        prepare = self._plain(resolution).preprocessing
        source = self.data.validation
        return torch.stack([prepare(source.picture(index)) for index in indices])

    def pixels_held_out(self, resolution: int, indices: Sequence[int]) -> Tensor:
        """The same, from 0 to 1 and not normalised."""
        own = self._plain(resolution).preprocessing
        mean, std = (torch.tensor(values)[:, None, None] for values in (own.mean, own.std))
        return self.held_out(resolution, indices) * std + mean

    def _plain(self, resolution: int) -> EfficientNet:
        """A network without storage, for what it asks of pictures."""
        factor = resolution / self.setting.base.config.resolution
        with torch.device("meta"):
            return EfficientNet(self.setting.base.config.scale(resolution=factor))


def train_full(
    training: Training, pictures: FullPictures, folder: Path, machine: Machine
) -> tuple[dict[str, Any], EfficientNet]:
    """Train a network at full size, and measure it on the pictures held out.

    A training that was interrupted goes on from its last epoch.

    Args:
        training: what to train.
        pictures: of its setting.
        folder: for the state to go on from; it belongs to this training alone.
        machine: where it runs.

    Returns:
        What :func:`effkernels.studies.train_network` returns, but that ``seconds`` are those of the steps on
        ``device``; and the trained network in eval mode on the CPU.

    Raises:
        ValueError: the loss is not finite, too many pictures cannot be read, or a step does not fit into memory.
    """
    last = run(_job(training, pictures, folder, machine), _Shown(training, machine)).history
    config = training.architecture.config
    weights = str(folder / "model.safetensors")
    model = new_model(config, len(pictures.classes), weights=weights).eval()
    result = {"accuracy": last[-1]["top1"], "loss": last[-1]["loss"]}
    if training.test:
        result["test_accuracy"] = _accuracy(model, pictures.test, training.setting.batch, machine)
        result["test_pictures"] = len(pictures.test)
    cost = training.architecture.cost(len(pictures.classes), pictures.channels)
    seconds = sum(row["seconds"] for row in last)
    result |= {"macs": cost.macs, "params": cost.params, "seconds": round(seconds, 3)}
    return {**result, "device": machine.name}, model.cpu()


def _job(training: Training, pictures: FullPictures, folder: Path, machine: Machine) -> Job:
    return Job(
        training.architecture.config,
        pictures.data,
        folder,
        training.setting.recipe,
        batch_size=training.setting.batch,
        seed=training.seed,
        workers=machine.workers,
        device=machine.device,
        bad_pictures=machine.bad_pictures,
        resume=True,
        curves=False,
    )


def _accuracy(model: EfficientNet, source: Source, batch: int, machine: Machine) -> float:
    def watch(one: Batch) -> None:
        for problem in one.problems:
            machine.note(problem)

    device = machine.device
    prepared = Pictures(source, model.preprocessing, 0, replace=False)
    read = loader(prepared, ValidationBatches(source, batch), machine.workers, device)
    own = model.to(device)
    where = (device, torch.float32, Processes())
    return validate(own, read, *where, precision=nullcontext, watch=watch).top1


class _Shown(Watch):
    def __init__(self, training: Training, machine: Machine) -> None:
        self._machine = machine
        self._epochs = training.setting.recipe.epochs
        self._done = self._steps = 0

    def problem(self, text: str) -> None:
        self._machine.note(text)

    def begin(self, epoch: int, done: int, steps: int) -> None:
        self._done, self._steps = epoch * steps + done, steps

    def step(self, pictures: int, loss: float | None) -> None:
        self._done += 1
        self._machine.progress(self._done / (self._steps * self._epochs))


class _Enough(Exception):  # noqa: N818 - no error: the steps are timed
    pass


class _Timed(Watch):
    """Stops a training after some steps."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.times = device, []  # type: torch.device, list[float]

    def begin(self, epoch: int, done: int, steps: int) -> None:
        if not self.times:
            self.times.append(time.perf_counter())

    def step(self, pictures: int, loss: float | None) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.times.append(time.perf_counter())
        if len(self.times) > _TIMED_STEPS:
            raise _Enough


def step_seconds(training: Training, pictures: FullPictures, machine: Machine) -> float:
    """Seconds of a step, timed over the first few of a training; reading the pictures is in it.

    Raises:
        ValueError: as :func:`train_full`.
    """
    timed = _Timed(machine.device)
    with TemporaryDirectory() as folder, suppress(_Enough):
        run(_job(training, pictures, Path(folder), machine), timed)
    begun, *steps = timed.times
    if len(steps) == 1:
        return steps[0] - begun
    return (steps[-1] - steps[0]) / (len(steps) - 1)
