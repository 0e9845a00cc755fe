"""Which cases are measured with which contestants: the rows of a report."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import contestants
from benchmarks.alternate import Timing
from benchmarks.cases import CPU, Case, Device, NetworkCase, depthwise, network, pointwise
from benchmarks.contestants import Contestant
from effkernels.models import CONFIGS

B0, B4, B5, B7, LITE0 = (f"efficientnet_{name}" for name in ("b0", "b4", "b5", "b7", "lite0"))
GROWING_BATCH = (1, 2, 4, 8, 16, 32, 64)
# On GPUs.
LARGE_BATCHES = (128, 256)
GPU_BATCH = 128
LARGEST_RESOLUTION = 600

_NETWORK = Timing(turn=0.1, budget=12.0)
_LAYER = Timing(turn=0.02, budget=1.2, settle=0.005, min_rounds=9)
_GROWTH = Timing(turn=0.1, budget=3.0, max_rounds=15)


@dataclass(frozen=True)
class Suite:
    """Cases of one kind and who computes them. ``metric``: "time", or "memory" of fresh processes."""

    name: str
    heading: str
    cases: tuple[Case, ...]
    contestants: tuple[Contestant, ...]
    timing: Timing
    metric: str = "time"


def suites(*, full: bool = False, growth: bool = False, device: Device = CPU) -> list[Suite]:
    """The default matrix; with ``growth`` the cost as work grows, with ``full`` everything."""
    on_cpu = device.kind == "cpu"
    everyone = contestants.NETWORKS if on_cpu else contestants.GPU_NETWORKS
    who = tuple(contestant for contestant in everyone if full or not contestant.full)
    batch = 1 if on_cpu else GPU_BATCH
    layers = [B0, B4] if on_cpu or not full else [B0, B4, B5, B7]
    chosen = [
        Suite("networks", "Networks", _networks(full, device), who, _NETWORK),
        Suite(
            "depthwise",
            "Depthwise convolutions",
            tuple(depthwise(layers, batch=batch, device=device)),
            contestants.DEPTHWISE if on_cpu else contestants.GPU_DEPTHWISE,
            _LAYER,
        ),
        Suite(
            "pointwise",
            "1x1 convolutions",
            tuple(pointwise(layers if full else [B0], batch=batch, device=device)),
            contestants.POINTWISE,
            _LAYER,
        ),
        Suite(
            "memory",
            "Peak memory",
            (network(B5, batch=1 if on_cpu else 64, device=device),),
            contestants.MEMORY,
            _NETWORK,
            metric="memory",
        ),
    ]
    if growth or full:
        batches = GROWING_BATCH if on_cpu else GROWING_BATCH + LARGE_BATCHES
        growing = contestants.GROWTH if on_cpu else contestants.GPU_GROWTH
        chosen += [
            Suite(
                "batch",
                "B0 as the batch grows",
                tuple(network(B0, batch=n, device=device) for n in batches),
                growing,
                _GROWTH,
            ),
            Suite(
                "resolution",
                "B0 as the resolution grows",
                tuple(
                    network(B0, resolution=side, batch=batch, device=device)
                    for side in growing_resolutions()
                ),
                growing,
                _GROWTH,
            ),
        ]
    return chosen


def growing_resolutions() -> list[int]:
    """Those of the named models up to B7's, and smaller ones down to 128."""
    named = {config.resolution for config in CONFIGS.values()}
    return sorted({128, 160, 192} | {side for side in named if side <= LARGEST_RESOLUTION})


def _networks(full: bool, device: Device) -> tuple[NetworkCase, ...]:
    if device.kind == "cpu":
        sizes = [(B0, 1), (B4, 1), (LITE0, 1), (B0, 16), *[(B4, 16)] * full]
    else:
        sizes = [(B0, 1), (B4, 1), (B0, GPU_BATCH), (B4, GPU_BATCH)]
        sizes += [(B5, 1), (B7, 1), (B5, GPU_BATCH), (B7, 64), (LITE0, GPU_BATCH)] * full
    return tuple(network(model, batch=batch, device=device) for model, batch in sizes)
