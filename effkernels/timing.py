"""Times several calls in turns, so that what slows the machine slows all of them."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles

import torch


def in_turns(
    runs: Sequence[Callable[[], object]],
    *,
    seconds: float,
    fewest: int,
    most: int,
    warm_up: int = 0,
    calls: Sequence[int] | None = None,
) -> list[tuple[float, ...]]:
    """Milliseconds of each of ``runs`` in each round: A B C, C B A ..., so that load and order affect all equally.

    Args:
        runs: called without arguments; each has to wait for what it starts.
        seconds: no more rounds begin after this time, except for the fewest.
        fewest, most: rounds.
        warm_up: rounds before, which are not measured.
        calls: how often each is called in its turn, of which the median counts; an unmeasured call comes first,
            because the turns of the others have taken its memory out of the caches. None: one call, and no other.
    """
    for _ in range(warm_up):
        for run in runs:
            run()
    rounds: list[tuple[float, ...]] = []
    began = time.perf_counter()
    for number in range(most):
        if number >= fewest and time.perf_counter() - began > seconds:
            break
        order = list(range(len(runs)))
        took = [0.0] * len(runs)
        for place in reversed(order) if number % 2 else order:
            if calls is None:
                took[place] = milliseconds(runs[place])
            else:
                runs[place]()
                took[place] = median(milliseconds(runs[place]) for _ in range(calls[place]))
        rounds.append(tuple(took))
    return rounds


def milliseconds(run: Callable[[], object]) -> float:
    """The time of one call."""
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of at least one value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


def device_name(device: torch.device) -> str:
    """What a time was measured on: the GPU's name, or the processor's as the system gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()
