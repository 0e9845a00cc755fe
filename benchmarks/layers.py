"""Single layers and blocks: ours in one op, PyTorch's in separate calls, and the bare matrix product."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.contestants import Built
from benchmarks.layer_cases import (
    BlockCase,
    ConvCase,
    DepthwiseCase,
    LayerCases,
    PointwiseCase,
    SqueezeExciteCase,
)
from benchmarks.layer_problem import eager, ours_norm
from benchmarks.networks import available_backends
from benchmarks.problem import Problem, Tensors
from benchmarks.replay import ROTATED_BYTES, InTurn
from effkernels import ops

_NHWC = ("x", "weight", "residual", "depthwise_weight")

Run = Callable[..., Tensor]


def ours(case: LayerCases, folder: Path) -> Built:
    """The op of this library that computes the whole case."""
    make = functools.partial(_OURS[type(case)], case)
    return Built(_in_turn(make, case, folder, True), {"backends": available_backends()})


def in_calls(case: LayerCases, folder: Path, *, channels_last: bool, cudnn: bool = True) -> Built:
    """One PyTorch call after the other; convolutions on a GPU by cuDNN or by PyTorch's own kernels."""
    torch.backends.cudnn.enabled = cudnn  # in this process, which is this contestant's

    def make(inputs: Tensors) -> Run:
        return functools.partial(eager, case, inputs)

    return Built(_in_turn(make, case, folder, channels_last), {})


def product(case: PointwiseCase, folder: Path) -> Built:
    """``torch.mm`` of the pixels and the kernel, and nothing else."""

    def make(inputs: Tensors) -> Run:
        pixels = inputs["x"].permute(0, 2, 3, 1).reshape(-1, case.in_channels)
        kernel = inputs["weight"][:, :, 0, 0].T
        size = (case.batch, case.height, case.width, case.out_channels)
        return lambda: torch.mm(pixels, kernel).view(size).permute(0, 3, 1, 2)

    return Built(_in_turn(make, case, folder, True), {})


def _window(op: Run, case: DepthwiseCase | ConvCase, inputs: Tensors) -> Run:
    return functools.partial(
        op,
        inputs["x"],
        inputs["weight"],
        bn=ours_norm(inputs),
        stride=case.stride,
        padding=case.kernel_size // 2,
        activation=case.activation,
    )


def _pointwise(case: PointwiseCase, inputs: Tensors) -> Run:
    gate = inputs.get("gate")
    return functools.partial(
        ops.pointwise_conv_bn_act,
        inputs["x"],
        inputs["weight"],
        bn=ours_norm(inputs),
        gate=None if gate is None else gate.float(),
        residual=inputs.get("residual"),
        activation=case.activation,
    )


def _gate(inputs: Tensors) -> ops.Gate:
    names = ("reduce_weight", "reduce_bias", "gate_weight", "gate_bias")
    return ops.Gate(*(inputs[name] for name in names))


def _squeeze_excite(case: SqueezeExciteCase, inputs: Tensors) -> Run:
    return functools.partial(
        ops.squeeze_excite, inputs["x"], *_gate(inputs), activation=case.activation
    )


def _block(case: BlockCase, inputs: Tensors) -> Run:
    def conv(part: str) -> ops.Conv:
        return ops.Conv(inputs[f"{part}weight"], None, ours_norm(inputs, part))

    return functools.partial(
        ops.mbconv,
        inputs["x"],
        conv("expand_") if case.expands else None,
        conv("depthwise_"),
        _gate(inputs) if case.hidden else None,
        conv(""),
        stride=case.stride,
        padding=case.kernel_size // 2,
        residual=case.residual,
        activation=case.activation,
    )


# Each binds the inputs once: what is timed is the op.
_OURS: dict[type, Callable[[Any, Tensors], Run]] = {
    DepthwiseCase: functools.partial(_window, ops.depthwise_conv_bn_act),
    PointwiseCase: _pointwise,
    ConvCase: functools.partial(_window, ops.conv_bn_act),
    SqueezeExciteCase: _squeeze_excite,
    BlockCase: _block,
}


def _in_turn(
    make: Callable[[Tensors], Run], case: LayerCases, folder: Path, channels_last: bool
) -> Run:
    """What ``make`` makes of the inputs; on a GPU of copies in turn, so that no run finds its input in the L2.

    In a network a CPU's caches hold what the layer before wrote; a batch on a GPU is too large for that.
    """
    inputs = Problem(folder, case).inputs()
    if channels_last:
        for name in inputs.keys() & set(_NHWC):
            inputs[name] = inputs[name].contiguous(memory_format=torch.channels_last)
    if case.device.kind == "cpu":
        return make(inputs)
    x = inputs["x"]
    copies = [x, *(x.clone() for _ in range(ROTATED_BYTES // x.nbytes))]
    return InTurn([make({**inputs, "x": copy}) for copy in copies])
