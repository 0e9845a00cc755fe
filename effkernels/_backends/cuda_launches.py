"""What `effkernels._C_cuda` tells of its launches: which they are, and how long they take."""

from __future__ import annotations

import torch
from torch import Tensor

from effkernels.dispatch import Launch
from effkernels.launch_timing import DeviceRates, Timed, TimedRun

_OPS = ("record_launches", "time_launches", "device_rates")
_TIMED: dict[Timed | None, int] = {None: 0, "each launch": 1, "apart": 2, "whole": 3}
_NO_LAYER = "-"
_NUMBERS = 10  # of a launch


def there() -> bool:
    """Whether the loaded module can tell."""
    return all(hasattr(torch.ops.effkernels_cuda, name) for name in _OPS)


def _launch_of(line: str) -> tuple[Launch, list[float]]:
    """A launch and what is said after it, from a line of the module: see `append_launch` in csrc/binding/cuda."""
    kernel, layer, *words = line.split()
    blocks, threads, shared_bytes, cluster, dependent, part, parts, step, moved, flops = map(
        int, words[:_NUMBERS]
    )
    launch = Launch(
        kernel=kernel,
        blocks=blocks,
        threads=threads,
        shared_bytes=shared_bytes,
        cluster=cluster,
        dependent=bool(dependent),
        part=part,
        parts=parts,
        step=step,
        layer="" if layer == _NO_LAYER else layer,
        bytes=moved,
        flops=flops,
    )
    return launch, list(map(float, words[_NUMBERS:]))


def record_launches(on: bool) -> list[Launch]:
    """See :func:`effkernels.dispatch.record_launches`."""
    lines: str = torch.ops.effkernels_cuda.record_launches(on)
    return [_launch_of(line)[0] for line in lines.splitlines()]


def _run_of(lines: list[str]) -> TimedRun:
    """A run from its lines: see `time_launches` in csrc/binding/cuda."""
    nothing, whole, queued = map(int, lines[0].split()[1:])
    found = [_launch_of(line) for line in lines[1:]]
    return TimedRun(
        nothing=1e-9 * nothing,
        whole=1e-9 * whole,
        queued=bool(queued),
        launches=tuple(launch for launch, _ in found),
        seconds=tuple(1e-9 * nanoseconds for _, rest in found for nanoseconds in rest),
    )


class Timer:
    """See :class:`effkernels.launch_timing.LaunchTimer`."""

    def time(self, timed: Timed | None, hold_up: float = 0.0) -> list[TimedRun]:
        """Begin or end to time the runs of this thread."""
        text: str = torch.ops.effkernels_cuda.time_launches(_TIMED[timed], round(1e6 * hold_up))
        runs: list[list[str]] = []
        for line in text.splitlines():
            if line.startswith("="):
                runs.append([])
            runs[-1].append(line)
        return [_run_of(lines) for lines in runs]

    def rates(self, probe: Tensor) -> DeviceRates:
        """By the driver, for the device of ``probe``."""
        return DeviceRates(*torch.ops.effkernels_cuda.device_rates(probe))
