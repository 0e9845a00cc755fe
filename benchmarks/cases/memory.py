"""Peak memory of a forward pass, and how it grows with the batch."""

from __future__ import annotations

from benchmarks.cases import Scope, Suite
from benchmarks.cases.networks import B0, B5, TIMING, case

BATCHES = (1, 4, 16, 64)


def suites(scope: Scope) -> list[Suite]:
    """B5 at one batch size, B0 at several."""
    device, contestants = scope.device, scope.contestants("memory")
    one = (case(B5, batch=1 if scope.on_cpu else 64, device=device),)
    several = tuple(case(B0, batch=n, device=device) for n in BATCHES)
    heading = "Peak memory as the batch grows"
    return [
        Suite("memory", "Peak memory", one, contestants, TIMING, "memory", "memory", place=40),
        Suite("batch-memory", heading, several, contestants, TIMING, "memory", "memory", True, 41),
    ]
