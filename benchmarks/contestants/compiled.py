"""``torch.compile`` of the modules that run in eager PyTorch."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.cases.networks import NetworkCase
from benchmarks.contestants import Built, Contestant, Missing
from benchmarks.contestants.eager import in_layout, stock_network
from benchmarks.harness.inputs import copies, in_turn


def _compiled(
    name: str,
    place: int,
    *,
    freezing: bool = False,
    channels_last: bool = True,
    mode: str | None = None,
    cpu: bool = False,
    cuda: bool = False,
    full: bool = False,
) -> Contestant:
    options = (("freezing", freezing), ("channels_last", channels_last), ("mode", mode))
    groups = ("networks",)
    return Contestant(
        name,
        "torch.compile",
        f"{__name__}:model",
        options,
        cpu=groups * cpu,
        cuda=groups * cuda,
        full=full,
        place=place,
    )


# Two rows with one name and different settings, because it is always measured on a GPU, and rarely
# on a CPU.
CONTESTANTS = (
    _compiled("compile-freezing-channels_last", 40, freezing=True, cpu=True),
    _compiled("compile-freezing-NCHW", 41, freezing=True, channels_last=False, cpu=True, full=True),
    _compiled("compile-channels_last", 42, cpu=True, full=True),
    _compiled("compile-channels_last", 42, cuda=True),
    _compiled("compile-reduce-overhead", 43, mode="reduce-overhead", cuda=True),
    _compiled("compile-NCHW", 44, channels_last=False, cpu=True, cuda=True, full=True),
    _compiled("compile-max-autotune", 45, mode="max-autotune", cuda=True, full=True),
    Contestant(
        "torch.compile",
        "torch.compile",
        "benchmarks.harness.startup:measure",
        cpu=("startup",),
        cuda=("startup",),
        full=True,
        place=40,
    ),
)


def model(
    case: NetworkCase, folder: Path, *, freezing: bool, channels_last: bool, mode: str | None
) -> Built:
    """``torch.compile`` of the same modules, for this one shape."""
    import torch._inductor.config as inductor

    torch.compiler.reset()
    inductor.freezing = freezing
    stock, source = stock_network(case, folder)
    stock, images = in_layout(stock, case, folder, channels_last)
    fast = torch.compile(stock, dynamic=False, mode=mode)
    try:
        with torch.inference_mode():
            fast(images)
    except Exception as error:
        # On a CPU torch.compile needs a C++ compiler.
        if "compiler" in str(error).lower():
            raise Missing(str(error).strip().splitlines()[0]) from error
        raise
    details = {"modules": source, "freezing": freezing, "mode": mode}
    return Built(in_turn(fast, copies(images)), details)
