"""B0's time, and its memory, as batch and resolution grow."""

from __future__ import annotations

from benchmarks.cases import Scope, Suite
from benchmarks.cases.networks import B0, GPU_BATCH, case
from benchmarks.harness.alternate import Timing
from effkernels.models import CONFIGS

BATCHES = (1, 2, 4, 8, 16, 32, 64)
LARGE_BATCHES = (128, 256)  # on GPUs
LARGEST_RESOLUTION = 600
_TIMING = Timing(turn=0.1, budget=3.0, max_rounds=15)


def suites(scope: Scope) -> list[Suite]:
    """One case per batch size, and one per resolution."""
    device, contestants = scope.device, scope.contestants("growth")
    batches = BATCHES if scope.on_cpu else BATCHES + LARGE_BATCHES
    batch = tuple(case(B0, batch=n, device=device) for n in batches)
    at_once = 1 if scope.on_cpu else GPU_BATCH
    resolution = tuple(
        case(B0, resolution=side, batch=at_once, device=device) for side in resolutions()
    )
    named = (("batch", batch, 30), ("resolution", resolution, 31))
    return [
        Suite(
            *(name, f"As the {name} grows", cases, contestants, _TIMING, "growth"),
            growth=True,
            place=place,
        )
        for name, cases, place in named
    ]


def resolutions() -> list[int]:
    """The resolutions of the named models up to B7's, and smaller ones down to 128."""
    named = {config.resolution for config in CONFIGS.values()}
    return sorted({128, 160, 192} | {side for side in named if side <= LARGEST_RESOLUTION})
