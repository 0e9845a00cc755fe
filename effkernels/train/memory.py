"""Whether a training step fits into memory, asked before the first one.

Where a CPU's memory does not suffice, no exception is raised: the system ends the process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from effkernels.analysis.cost import model_cost
from effkernels.analysis.memory import training_memory
from effkernels.models import EfficientNetConfig

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def step_memory(
    config: EfficientNetConfig,
    batch_size: int,
    resolution: int,
    *,
    num_classes: int,
    activations: torch.dtype,
    parameters: torch.dtype,
    averaged: bool,
) -> int:
    """Bytes of a training step in one process, an upper estimate; see :func:`effkernels.scaling.training_memory`."""
    cost = model_cost(
        config, resolution, batch_size=batch_size, dtype=activations, num_classes=num_classes
    )
    return training_memory(cost, parameter_dtype=parameters, optimizer_states=2 + averaged)


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free for this process; None where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _available()
    limit = _below_limit()
    if free is None or limit is None:
        return free if limit is None else limit
    return min(free, limit)


def _available() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if kilobytes is None else 1024 * int(kilobytes)


def _below_limit() -> int | None:
    """What a container's limit leaves; caches of files count as free."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    return max(int(limit) - used + int(counts.get("inactive_file", 0)), 0)


def fitting_batch(needed: Callable[[int], int], batch_size: int, free: int) -> int:
    """The largest batch below ``batch_size`` that needs at most ``free`` bytes; 0 for none.

    Args:
        needed: bytes of a step, by the number of its pictures.
        batch_size: what does not fit.
        free: bytes.
    """
    low, high = 0, batch_size  # low fits, if anything does; high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= free else (low, middle)
    return low


def check_memory(
    config: EfficientNetConfig,
    batch_size: int,
    resolution: int,
    device: torch.device,
    *,
    num_classes: int,
    activations: torch.dtype,
    parameters: torch.dtype,
    averaged: bool,
    processes: int = 1,
) -> None:
    """Refuse a batch that does not fit into free memory, and name the largest that does.

    Args:
        config, num_classes: of the model.
        batch_size: pictures of one process at a time.
        resolution: the largest side of the images.
        device: where the training runs.
        activations, parameters: their dtypes.
        averaged: whether an average of the weights is kept.
        processes: that share the machine's memory (those on GPUs have their own).

    Raises:
        ValueError: it does not fit.
    """
    free = free_memory(device)
    if free is None:
        return
    if device.type != "cuda":
        free //= processes

    def needed(pictures: int) -> int:
        return step_memory(
            config,
            pictures,
            resolution,
            num_classes=num_classes,
            activations=activations,
            parameters=parameters,
            averaged=averaged,
        )

    if needed(batch_size) <= free:
        return
    low = fitting_batch(needed, batch_size, free)
    fits = (
        f"--batch-size {low} would fit (with --accumulate {-(-batch_size // low)} for about the same step)"
        if low
        else "not even one picture would fit: choose a smaller model or --resolution"
    )
    raise ValueError(
        f"a step with --batch-size {batch_size} of {resolution} x {resolution} pixels needs about "
        f"{needed(batch_size) / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: {fits}"
    )
