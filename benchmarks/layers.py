"""Single layers: ours in one op, PyTorch's in separate calls, and the bare matrix product."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cases import DepthwiseCase, PointwiseCase
from benchmarks.contestants import Built
from benchmarks.networks import available_backends
from benchmarks.problem import Problem, Tensors, depthwise_conv, layer, ours_norm
from effkernels import ops

LayerCase = DepthwiseCase | PointwiseCase

# Three times the largest L2 cache there is of a GPU.
_ROTATED_BYTES = 400 * 2**20


def ours_depthwise(case: DepthwiseCase, folder: Path) -> Built:
    """``ops.depthwise_conv_bn_act``."""

    def make(inputs: Tensors) -> Callable[[], Tensor]:
        return functools.partial(
            ops.depthwise_conv_bn_act,
            inputs["x"],
            inputs["weight"],
            bn=ours_norm(inputs),
            stride=case.stride,
            padding=case.kernel_size // 2,
            activation=case.activation,
        )

    return Built(_in_turn(make, case, folder, True), {"backends": available_backends()})


def eager_depthwise(
    case: DepthwiseCase, folder: Path, *, channels_last: bool, cudnn: bool = True
) -> Built:
    """Convolution, BatchNorm and activation one after the other; on a GPU by cuDNN or by PyTorch's own kernels."""
    torch.backends.cudnn.enabled = cudnn  # in this process, which is this contestant's

    def make(inputs: Tensors) -> Callable[[], Tensor]:
        return layer(inputs, case.activation, depthwise_conv(case))

    return Built(_in_turn(make, case, folder, channels_last), {})


def ours_pointwise(case: PointwiseCase, folder: Path) -> Built:
    """``ops.pointwise_conv_bn_act`` with the gate and residual that the network has there."""

    def make(inputs: Tensors) -> Callable[[], Tensor]:
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

    return Built(_in_turn(make, case, folder, True), {"backends": available_backends()})


def eager_pointwise(case: PointwiseCase, folder: Path, *, channels_last: bool) -> Built:
    """Gate, convolution, BatchNorm, activation and residual one after the other."""

    def make(inputs: Tensors) -> Callable[[], Tensor]:
        return layer(inputs, case.activation, F.conv2d)

    return Built(_in_turn(make, case, folder, channels_last), {})


def product(case: PointwiseCase, folder: Path) -> Built:
    """``torch.mm`` of the pixels and the kernel, and nothing else."""

    def make(inputs: Tensors) -> Callable[[], Tensor]:
        pixels = inputs["x"].permute(0, 2, 3, 1).reshape(-1, case.in_channels)
        kernel = inputs["weight"][:, :, 0, 0].T
        size = (case.batch, case.height, case.width, case.out_channels)
        return lambda: torch.mm(pixels, kernel).view(size).permute(0, 3, 1, 2)

    return Built(_in_turn(make, case, folder, True), {})


def _in_turn(
    make: Callable[[Tensors], Callable[[], Tensor]],
    case: LayerCase,
    folder: Path,
    channels_last: bool,
) -> Callable[[], Tensor]:
    """What ``make`` makes of the inputs; on a GPU of copies in turn, so that no run finds its input in the L2.

    In a network a CPU's caches hold what the layer before wrote; a batch on a GPU is too large for that.
    """
    inputs = Problem(folder, case).inputs()
    if channels_last:
        for name in inputs.keys() & {"x", "weight", "residual"}:
            inputs[name] = inputs[name].contiguous(memory_format=torch.channels_last)
    if case.device.kind == "cpu":
        return make(inputs)
    x = inputs["x"]
    copies = [x, *(x.clone() for _ in range(_ROTATED_BYTES // x.nbytes))]
    runs = itertools.cycle([make({**inputs, "x": copy}) for copy in copies])
    return lambda: next(runs)()
