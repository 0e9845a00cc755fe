"""The time from a fresh interpreter to the first logits."""

from __future__ import annotations

from benchmarks.cases import Scope, Suite
from benchmarks.cases.networks import B0, TIMING, case


def suites(scope: Scope) -> list[Suite]:
    """B0; the contestant that compiles takes a minute, and is included only with ``full``."""
    cases, contestants = (case(B0, device=scope.device),), scope.contestants("startup")
    heading = "Until the first logits"
    return [Suite("startup", heading, cases, contestants, TIMING, "startup", "startup", place=50)]
