"""What trainings will cost, said before the first of them begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from effkernels.studies.training import Training

_BACKWARD = 2
"""Passes of a training step beside the forward pass, in MACs: gradients of inputs and of weights."""
_TESTED = 10_000


def work(macs: float, setting: Mapping[str, Any], test: bool = False) -> float:
    """Multiply-accumulates of one training and of measuring what it made.

    Args:
        macs: of one picture.
        setting: as JSON.
        test: whether test pictures are measured as well.
    """
    trained = (1 + _BACKWARD) * setting["pictures"] * setting["recipe"]["epochs"]
    return float(macs * (trained + setting["held_out"] + (_TESTED if test else 0)))


def speed(finished: Iterable[Mapping[str, Any]]) -> float | None:
    """Multiply-accumulates in a second of processor time, the median of finished trainings; None without any."""
    speeds = [
        work(row["macs"], row["setting"], row["test"]) / row["seconds"]
        for row in finished
        if row["seconds"] > 0
    ]
    return median(speeds) if speeds else None


def forecast(missing: Sequence[Training], finished: Iterable[Mapping[str, Any]]) -> str:
    """What is left to train, in words: an upper bound where a study stops some of them early.

    The work is exact, from the cost model. The time is that of earlier trainings in the same store, in proportion to
    the work; small networks spend much of it between the layers, so that it is a rough one.
    """
    classes, channels = missing[0].setting.shape
    total = sum(
        work(
            training.architecture.cost(classes, channels).macs,
            training.setting.to_json(),
            training.test,
        )
        for training in missing
    )
    many = "1 training" if len(missing) == 1 else f"{len(missing)} trainings"
    text = f"up to {many}, {total / 1e12:.3g} * 10^12 multiply-accumulates"
    found = speed(finished)
    if found is None:
        return f"{text}; how long that takes is known after the first"
    minutes = total / found / 60
    return f"{text}: about {minutes:.2g} minutes of processor time by the earlier ones here"
