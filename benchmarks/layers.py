"""Single layers: ours in one op, PyTorch's in separate calls, and the bare matrix product."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.cases import DepthwiseCase, PointwiseCase
from benchmarks.contestants import Built
from benchmarks.networks import available_backends
from benchmarks.problem import Problem, Tensors, depthwise_conv, layer, ours_norm
from effkernels import ops


def ours_depthwise(case: DepthwiseCase, folder: Path) -> Built:
    """``ops.depthwise_conv_bn_act``."""
    inputs = _inputs(case, folder, channels_last=True)
    x, weight, bn = inputs["x"], inputs["weight"], ours_norm(inputs)
    run = functools.partial(
        ops.depthwise_conv_bn_act,
        x,
        weight,
        bn=bn,
        stride=case.stride,
        padding=case.kernel_size // 2,
        activation=case.activation,
    )
    return Built(run, {"backends": available_backends()})


def eager_depthwise(case: DepthwiseCase, folder: Path, *, channels_last: bool) -> Built:
    """Convolution, BatchNorm and activation one after the other."""
    inputs = _inputs(case, folder, channels_last=channels_last)
    return Built(layer(inputs, case.activation, depthwise_conv(case)), {})


def ours_pointwise(case: PointwiseCase, folder: Path) -> Built:
    """``ops.pointwise_conv_bn_act`` with the gate and residual that the network has there."""
    inputs = _inputs(case, folder, channels_last=True)
    x, weight, bn = inputs["x"], inputs["weight"], ours_norm(inputs)
    extra = {"gate": inputs.get("gate"), "residual": inputs.get("residual")}
    return Built(
        lambda: ops.pointwise_conv_bn_act(x, weight, bn=bn, activation=case.activation, **extra),
        {"backends": available_backends()},
    )


def eager_pointwise(case: PointwiseCase, folder: Path, *, channels_last: bool) -> Built:
    """Gate, convolution, BatchNorm, activation and residual one after the other."""
    return Built(
        layer(_inputs(case, folder, channels_last=channels_last), case.activation, F.conv2d), {}
    )


def product(case: PointwiseCase, folder: Path) -> Built:
    """``torch.mm`` of the pixels and the kernel, and nothing else."""
    inputs = _inputs(case, folder, channels_last=True)
    pixels = inputs["x"].permute(0, 2, 3, 1).reshape(-1, case.in_channels)
    kernel = inputs["weight"][:, :, 0, 0].T
    size = (case.batch, case.height, case.width, case.out_channels)
    return Built(lambda: torch.mm(pixels, kernel).view(size).permute(0, 3, 1, 2), {})


def _inputs(case: DepthwiseCase | PointwiseCase, folder: Path, *, channels_last: bool) -> Tensors:
    inputs = Problem(folder, case).inputs()
    if channels_last:
        for name in ("x", "weight", "residual"):
            if name in inputs:
                inputs[name] = inputs[name].contiguous(memory_format=torch.channels_last)
    return inputs
