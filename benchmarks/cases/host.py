"""The host's time per forward pass: on a CPU without images or kernels, on a GPU without waiting for it.

Images are small, so that neither kernels nor the allocation of results take noticeable time.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cases import Scope, Suite
from benchmarks.cases.networks import B0, TIMING, NetworkCase

_PIXELS = 32


@dataclass(frozen=True)
class HostCase(NetworkCase):
    """A network whose time in Python is measured."""

    @property
    def key(self) -> str:
        """Unique among all cases."""
        return f"host-{super().key}"

    @property
    def clock(self) -> str:
        """Measures until the call returns."""
        return "host"


def suites(scope: Scope) -> list[Suite]:
    """B0 with one image."""
    cases, contestants = (HostCase(B0, _PIXELS, device=scope.device),), scope.contestants("host")
    heading = "Python's time per forward pass"
    return [Suite("host", heading, cases, contestants, TIMING, "host", "host", place=60)]
