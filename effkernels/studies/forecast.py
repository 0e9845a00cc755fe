"""What trainings will cost, said before the first of them begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

from effkernels.studies.full_size import FullPictures, Machine, step_seconds
from effkernels.studies.setting import FASHION_TESTED, epochs_of
from effkernels.studies.training import Training
from effkernels.train.memory import fitting_batch, free_memory, step_memory

_BACKWARD = 2
"""Passes of a training step beside the forward pass, in MACs: gradients of inputs and of weights."""
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def work(macs: float, setting: Mapping[str, Any], tested: int = 0) -> float:
    """Multiply-accumulates of one training and of measuring what it made.

    Args:
        macs: of one picture.
        setting: as JSON.
        tested: test pictures that are measured as well.
    """
    epochs = epochs_of(setting)
    # At full size the pictures held out are looked at after each epoch.
    held_out = setting["held_out"] * (epochs if "size" in setting else 1)
    return steps_work(macs, setting) + float(macs * (held_out + tested))


def steps_work(macs: float, setting: Mapping[str, Any]) -> float:
    """That of the steps alone; pictures that fill no batch are left out of an epoch."""
    epochs = epochs_of(setting)
    trained = setting["pictures"] // setting["batch"] * setting["batch"] * epochs
    return float(macs * (1 + _BACKWARD) * trained)


def speed(finished: Iterable[Mapping[str, Any]], device: str | None = None) -> float | None:
    """Multiply-accumulates in a second, the median of finished trainings; None without any.

    Args:
        finished: results.
        device: of trainings at full size, where seconds are those of the steps; None for the small ones, whose
            seconds are of processor time and of everything.
    """

    def done(row: Mapping[str, Any]) -> float:
        if device is None:
            return work(row["macs"], row["setting"], _tested(row))
        return steps_work(row["macs"], row["setting"])

    own = [row for row in finished if row["seconds"] > 0 and row.get("device") == device]
    speeds = [done(row) / row["seconds"] for row in own]
    return median(speeds) if speeds else None


def _tested(row: Mapping[str, Any]) -> int:
    return int(row.get("test_pictures", FASHION_TESTED)) if row["test"] else 0


def total_work(missing: Sequence[Training]) -> float:
    """Multiply-accumulates of all of these."""
    return sum(
        work(
            training.setting.base.cost(training.architecture).macs,
            training.setting.to_json(),
            training.setting.test_count if training.test else 0,
        )
        for training in missing
    )


def forecast(missing: Sequence[Training], finished: Iterable[Mapping[str, Any]]) -> str:
    """What is left to train, in words: an upper bound where a study stops some of them early.

    The work is exact, from the cost model. The time is that of earlier trainings in the same store, in proportion to
    the work; small networks spend much of it between the layers, so that it is a rough one.
    """
    text = _amount(missing)
    found = speed(finished)
    if found is None:
        return f"{text}; how long that takes is known after the first"
    minutes = total_work(missing) / found / 60
    return f"{text}: about {minutes:.2g} minutes of processor time by the earlier ones here"


def _amount(missing: Sequence[Training]) -> str:
    many = "1 training" if len(missing) == 1 else f"{len(missing)} trainings"
    return f"up to {many}, {total_work(missing) / 1e12:.3g} * 10^12 multiply-accumulates"


def forecast_full(
    missing: Sequence[Training],
    finished: Iterable[Mapping[str, Any]],
    pictures: FullPictures,
    machine: Machine,
) -> list[str]:
    """The same of networks at full size, in lines: work, memory, and time.

    Where no training of the store ran on this device, a few steps of the network of median MACs are timed.

    Raises:
        ValueError: a step of the largest network does not fit into the memory that is free; or it cannot be timed.
    """
    base, setting = missing[0].setting.base, missing[0].setting
    by_macs = sorted(missing, key=lambda training: base.cost(training.architecture).macs)
    largest = base.cost(by_macs[-1].architecture).macs / base.cost(base.network).macs
    sides = [training.architecture.config.resolution for training in missing]
    lines = [
        f"{_amount(missing)}, forward and backward by the cost model",
        f"networks: {base.config.name} ({base.config.resolution} pixels) scaled up to {largest:.3g} times its "
        f"multiply-accumulates and {max(sides)} pixels; pictures: {setting.pictures} to train on, {setting.held_out} "
        "held out",
        _memory(missing, machine),
    ]
    found, by = speed(finished, machine.name), "the earlier trainings here"
    if found is None:
        middle = by_macs[len(by_macs) // 2]
        macs = base.cost(middle.architecture).macs * (1 + _BACKWARD) * setting.batch
        found = macs / step_seconds(middle, pictures, machine)
        by = "steps of the network in the middle, timed now"
    taken = _duration(total_work(missing) / found)
    lines.append(f"time: about {taken} on {machine.name}, by {by}")
    return lines


def _memory(missing: Sequence[Training], machine: Machine) -> str:
    setting = missing[0].setting
    configs = {training.architecture.config for training in missing}

    def needed(batch: int) -> int:
        return max(
            step_memory(
                config,
                batch,
                config.resolution,
                num_classes=setting.base.num_classes,
                activations=torch.float32,
                parameters=torch.float32,
                averaged=setting.recipe.ema > 0,
            )
            for config in configs
        )

    free, wanted = free_memory(machine.device), needed(setting.batch)
    text = f"a step of {setting.batch} pictures needs about {wanted / 1e9:.2g} GB at most"
    if free is None:
        return f"memory: {text}"
    if wanted > free:
        fits = fitting_batch(needed, setting.batch, free)
        hint = (
            f"--batch-size {fits} would fit"
            if fits > 1
            else "begin with fewer pixels (--resolution) or a smaller base"
        )
        raise ValueError(f"{text}, {free / 1e9:.2g} GB are free: {hint}")
    return f"memory: {text}, {free / 1e9:.2g} GB are free"


def _duration(seconds: float) -> str:
    for unit, name in ((_DAY, "days"), (_HOUR, "hours"), (_MINUTE, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.{0 if seconds >= 10 * unit else 1}f} {name}"
    return f"{max(seconds, 1):.0f} seconds"
