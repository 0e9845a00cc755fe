"""effkernels: its networks as users run them, its layers as one op each, and its Python code without kernels."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import effkernels
from benchmarks.cases.layers import LayerCase
from benchmarks.cases.networks import NetworkCase, images, network
from benchmarks.contestants import Built, Contestant, Missing
from benchmarks.harness.inputs import Run, copies, in_turn, layer_in_turn
from effkernels import dispatch, ops
from effkernels.ops import _define

_SELF = __name__
_GROWING = ("growth", "memory")
_GRAPH = ("graph", True)
CONTESTANTS = (
    Contestant(
        "effkernels",
        "effkernels",
        f"{_SELF}:model",
        cpu=("networks", "low-precision", *_GROWING),
        cuda=("networks", "host", *_GROWING),
    ),
    Contestant("effkernels", "effkernels", f"{_SELF}:layer", cpu=("layers",), cuda=("layers",)),
    Contestant(
        "effkernels",
        "effkernels",
        "benchmarks.harness.startup:measure",
        cpu=("startup",),
        cuda=("startup",),
    ),
    Contestant(
        "effkernels-fused",
        "effkernels",
        f"{_SELF}:model",
        (("fuse", True),),
        cpu=("networks", "low-precision"),
        place=1,
    ),
    Contestant(
        "effkernels-graph", "effkernels", f"{_SELF}:model", (_GRAPH,), cuda=("networks",), place=1
    ),
    Contestant(
        "effkernels-fused-graph",
        "effkernels",
        f"{_SELF}:model",
        (("fuse", True), _GRAPH),
        cuda=("networks",),
        place=2,
    ),
    Contestant(
        "effkernels-no-kernels",
        "effkernels",
        f"{_SELF}:without_kernels",
        cpu=("host",),
        checked=False,
        place=1,
    ),
    Contestant(
        "effkernels-no-images",
        "effkernels",
        f"{_SELF}:without_images",
        cpu=("host",),
        checked=False,
    ),
)


def model(case: NetworkCase, folder: Path, *, fuse: bool = False, graph: bool = False) -> Built:
    """The model as a user runs it after ``.eval()``, on the backend that it chooses."""
    own = network(folder, case)
    own = case.device.put(own.fuse() if fuse else own)
    run = runner(own, images(case, folder, channels_last=False), graph)
    return Built(run, {"backends": available_backends()})


def runner(own: nn.Module, batch: Tensor, graph: bool) -> Run:
    """A function that runs the model on these images, directly or as a CUDA graph."""
    run = effkernels.graph(own, batch, copy=False) if graph else own
    return in_turn(run, copies(batch))


def available_backends() -> list[str]:
    """The backends that can run here, fastest first."""
    return [status.name for status in effkernels.backends().values() if status.available]


def layer(case: LayerCase, folder: Path) -> Built:
    """The op that computes the whole case. Its inputs are prepared once, so that only the op is timed."""

    def make(inputs: dict[str, Any]) -> Run:
        gate = inputs.get("gate")
        if isinstance(gate, Tensor):
            inputs = {**inputs, "gate": gate.float()}
        return functools.partial(getattr(ops, case.shape.op), **inputs)

    run = layer_in_turn(make, case, folder, channels_last=True)
    return Built(run, {"backends": available_backends()})


NO_KERNELS = "no-kernels"
"""A backend whose kernels only allocate their results."""


def without_kernels(case: NetworkCase, folder: Path) -> Built:
    """The model on the path for GPUs, on a CPU backend that computes nothing: what remains is Python's time."""
    _register_no_kernels()
    own, batch = network(folder, case), images(case, folder, channels_last=True)

    def run() -> Tensor:
        with effkernels.use_backend(NO_KERNELS, fallback=False):
            logits: Tensor = own(batch)
        return logits

    return Built(run, {"backends": [NO_KERNELS]})


def without_images(case: NetworkCase, folder: Path) -> Built:
    """The model on a CPU's route with a batch of no images: all that runs but kernels, in C++ too.

    Raises:
        Missing: there are no kernels of CPUs.
    """
    if not effkernels.backends()["cpu"].available:
        raise Missing("the cpu backend is not here")
    own, batch = network(folder, case), images(case, folder, channels_last=True)[:0]
    return Built(functools.partial(own, batch), {"backends": available_backends()})


def _register_no_kernels() -> None:
    """Register a kernel for each op that GPU backends have kernels for; composed ops and networks run step by step.

    Raises:
        Missing: no GPU backend has registered a kernel for networks.
    """
    if NO_KERNELS in dispatch._BACKENDS:
        return
    by_parts = {
        name: way
        for backend in ("triton", "cuda")
        for name, kernel in dispatch._BACKENDS[backend].kernels.items()
        for way in (kernel, kernel.otherwise)
        if way is not None and way.by_parts
    }
    if not by_parts:
        raise Missing("there is neither triton nor effkernels._C_cuda, so no path for GPUs")
    own = dispatch.Backend(NO_KERNELS, ("cpu",), on_request=True)
    dispatch._BACKENDS[NO_KERNELS] = own
    for name, op in _define._defined.items():
        if op.composed is None and hasattr(ops, name):
            dispatch.register_kernel(NO_KERNELS, name, op.fake, lambda *_: None)
    own.kernels.update(by_parts)
