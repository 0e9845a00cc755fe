"""Which cases are measured with which contestants: the rows of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import contestants
from benchmarks.alternate import Timing
from benchmarks.cases import Case, NetworkCase, network
from benchmarks.contestants import Contestant
from benchmarks.layer_cases import blocks, depthwise, pointwise, squeeze_excites, stems
from benchmarks.work import CPU, Device
from effkernels.models import CONFIGS

B0, B2, B4, B5, B7, LITE0 = (
    f"efficientnet_{name}" for name in ("b0", "b2", "b4", "b5", "b7", "lite0")
)
GROWING_BATCH = (1, 2, 4, 8, 16, 32, 64)
REMEMBERED_BATCH = (1, 4, 16, 64)
"""Batches whose memory is measured."""
# On GPUs.
LARGE_BATCHES = (128, 256)
GPU_BATCH = 128
LARGEST_RESOLUTION = 600

_NETWORK = Timing(turn=0.1, budget=12.0)
_LAYER = Timing(turn=0.02, budget=1.2, settle=0.005, min_rounds=9)
_GROWTH = Timing(turn=0.1, budget=3.0, max_rounds=15)


@dataclass(frozen=True)
class Suite:
    """Cases of one kind and who computes them.

    ``metric``: "time"; or, of fresh processes, "memory" or "startup".
    """

    name: str
    heading: str
    cases: tuple[Case, ...]
    contestants: tuple[Contestant, ...]
    timing: Timing = _NETWORK
    metric: str = "time"


def suites(*, full: bool = False, growth: bool = False, device: Device = CPU) -> list[Suite]:
    """The default matrix; with ``growth`` the cost as work grows, with ``full`` everything."""
    on_cpu = device.kind == "cpu"
    everyone = contestants.NETWORKS if on_cpu else contestants.GPU_NETWORKS
    starting = contestants.STARTUP if on_cpu else contestants.GPU_STARTUP
    networks = Suite("networks", "Networks", _networks(full, device), _who(everyone, full))
    memory = network(B5, batch=1 if on_cpu else 64, device=device)
    chosen = [
        networks,
        *([_low_precision()] if device == CPU else []),
        *_layers(full, device),
        Suite("memory", "Peak memory", (memory,), contestants.MEMORY, metric="memory"),
        Suite(
            "startup",
            "Until the first logits",
            (network(B0, device=device),),
            _who(starting, full),
            metric="startup",
        ),
    ]
    return chosen + (_growth(device) if growth or full else [])


def _low_precision() -> Suite:
    """Beside float32 on a CPU; a GPU's default is 16 bits anyway."""
    case = network(B0, device=Device("cpu", "bfloat16"))
    return Suite("low-precision", "In 16 bits", (case,), contestants.LOW_PRECISION)


def _who(everyone: Sequence[Contestant], full: bool) -> tuple[Contestant, ...]:
    return tuple(contestant for contestant in everyone if full or not contestant.full)


def _layers(full: bool, device: Device) -> list[Suite]:
    on_cpu = device.kind == "cpu"
    batch = 1 if on_cpu else GPU_BATCH
    largest = [B0, B4] if on_cpu or not full else [B0, B4, B5, B7]
    others = largest if full else [B0]
    who = contestants.LAYERS if on_cpu else contestants.GPU_LAYERS
    chosen: list[tuple[str, str, Sequence[Case], tuple[Contestant, ...]]] = [
        (
            "depthwise",
            "Depthwise convolutions",
            depthwise(largest, batch=batch, device=device),
            who,
        ),
        (
            "pointwise",
            "1x1 convolutions",
            pointwise(others, batch=batch, device=device),
            contestants.POINTWISE,
        ),
        (
            "squeeze",
            "Squeeze-excitation",
            squeeze_excites(others, batch=batch, device=device),
            who[:2],
        ),
        ("stem", "Stems", stems(largest, batch=batch, device=device), who),
        ("block", "Blocks", blocks(others, batch=batch, device=device), who[:2]),
    ]
    return [Suite(name, heading, tuple(cases), by, _LAYER) for name, heading, cases, by in chosen]


def _growth(device: Device) -> list[Suite]:
    on_cpu = device.kind == "cpu"
    batches = GROWING_BATCH if on_cpu else GROWING_BATCH + LARGE_BATCHES
    who = contestants.GROWTH if on_cpu else contestants.GPU_GROWTH
    batch = tuple(network(B0, batch=n, device=device) for n in batches)
    resolution = tuple(
        network(B0, resolution=side, batch=1 if on_cpu else GPU_BATCH, device=device)
        for side in growing_resolutions()
    )
    remembered = tuple(network(B0, batch=n, device=device) for n in REMEMBERED_BATCH)
    memory = contestants.MEMORY
    return [
        Suite("batch", "B0 as the batch grows", batch, who, _GROWTH),
        Suite("resolution", "B0 as the resolution grows", resolution, who, _GROWTH),
        Suite(
            "batch-memory",
            "B0's memory as the batch grows",
            remembered,
            memory,
            metric="memory",
        ),
    ]


def growing_resolutions() -> list[int]:
    """Those of the named models up to B7's, and smaller ones down to 128."""
    named = {config.resolution for config in CONFIGS.values()}
    return sorted({128, 160, 192} | {side for side in named if side <= LARGEST_RESOLUTION})


def _networks(full: bool, device: Device) -> tuple[NetworkCase, ...]:
    if device.kind == "cpu":
        sizes = [(B0, 1), (B4, 1), (LITE0, 1), (B0, 16)]
        sizes += [(B2, 1), (B5, 1), (B7, 1), (B4, 16)] * full
    else:
        sizes = [(B0, 1), (B4, 1), (B0, GPU_BATCH), (B4, GPU_BATCH)]
        sizes += [(B2, 1), (B5, 1), (B7, 1), (LITE0, 1)] * full
        sizes += [(B2, GPU_BATCH), (B5, GPU_BATCH), (B7, 64), (LITE0, GPU_BATCH)] * full
    return tuple(network(model, batch=batch, device=device) for model, batch in sizes)
