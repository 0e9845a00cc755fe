"""Networks that are called now and then, as by a server: each call follows a pause, after which threads sleep."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cases import Scope, Suite
from benchmarks.cases.networks import B0, B4, LITE0, NetworkCase
from benchmarks.harness.alternate import Timing
from effkernels.models import get_config

# A turn is of few calls, because each costs a pause that is not in its time.
_TIMING = Timing(turn=0.04, budget=0.0, min_rounds=9)


@dataclass(frozen=True)
class IdleCase(NetworkCase):
    """A network that is called after pauses."""

    @property
    def key(self) -> str:
        """Unique among all cases."""
        return f"idle-{super().key}"

    @property
    def clock(self) -> str:
        """Pauses before each call."""
        return "after a pause"


def suites(scope: Scope) -> list[Suite]:
    """On a CPU the networks with one image."""
    if not scope.on_cpu:
        return []
    cases = tuple(IdleCase(name, get_config(name).resolution) for name in (B0, B4, LITE0))
    heading, contestants = "Networks after 200 ms without work", scope.contestants("networks")
    return [Suite("idle", heading, cases, contestants, _TIMING, "networks", growth=True, place=15)]
