"""How long the kernels of networks take on a GPU, and what it can do: what a backend brings that can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from effkernels.dispatch import Launch

Timed = Literal["each launch", "apart", "whole"]
"""What is timed of a run: each launch, with an event after it, while none begins before the one before has ended; the
run, whose launches do not overlap either; or the run as it is without a timer."""


@dataclass(frozen=True)
class TimedRun:
    """One run of a network or of a block, in seconds of the device.

    Attributes:
        nothing: from an event to the next with nothing between them: what an event adds to a launch.
        whole: from the event before the first launch to the one after the last.
        queued: whether the device began after the host had launched everything. Else it may have waited for the host.
        launches: all of them, in order.
        seconds: of each, from the event before to the one after it; empty unless each was timed.
    """

    nothing: float
    whole: float
    queued: bool
    launches: tuple[Launch, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class DeviceRates:
    """What a GPU reaches, by its clocks and its data sheet; 0 where it does not say.

    Attributes:
        memory: bytes a second, read or written.
        product: FLOPs a second of products of 16-bit elements.
        vector: FLOPs a second of float32.
    """

    memory: float
    product: float
    vector: float


class LaunchTimer(Protocol):
    """What a backend brings that can time its launches."""

    def time(self, timed: Timed | None, hold_up: float = 0.0) -> list[TimedRun]:
        """Begin to time this thread's runs, or end; what was timed since the last call.

        ``hold_up``: seconds by which each run begins later, so that the host can launch everything before.
        """

    def rates(self, probe: Tensor) -> DeviceRates:
        """Of the device of ``probe``."""


_timers: dict[str, LaunchTimer] = {}


def register(backend: str, timer: LaunchTimer) -> None:
    """Let :func:`timer_of` find this one."""
    _timers[backend] = timer


def timer_of(backend: str) -> LaunchTimer | None:
    """What times the launches of a backend; None if it cannot."""
    return _timers.get(backend)
