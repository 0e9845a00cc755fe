"""What the convolutions with a window share: their schema, shapes, FLOPs and argument checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from effkernels.ops._arguments import (
    BatchNorm,
    cast,
    channels_last,
    check_activation,
    check_beside,
    check_images,
    check_output,
    flat_norm,
    four_sides,
    pair,
)
from effkernels.reference.convolution import output_size


def norm(prefix: str = "") -> str:
    """Bias and BatchNorm in a schema, for each convolution that an op has."""
    names = ("bias", "bn_weight", "bn_bias", "running_mean", "running_var")
    return ", ".join(f"Tensor? {prefix}{name}" for name in names) + f", float {prefix}eps"


NORM = norm()
ARGUMENTS = (
    f"Tensor x, Tensor weight, {NORM}, SymInt[2] stride, SymInt[4] padding, SymInt[2] dilation, "
    "str activation"
)


def result_size(arguments: Sequence[Any], *, shapes: bool = False) -> tuple[int, int, int, int]:
    """(N, C_out, H_out, W_out) from arguments that begin with ``ARGUMENTS``; ``shapes``: given shapes for tensors."""
    x, weight = arguments[:2] if shapes else (arguments[0].shape, arguments[1].shape)
    stride, padding, dilation = arguments[8:11]
    return x[0], weight[0], *output_size(x[2:], weight[2:], stride, padding, dilation)


def flops(*arguments: Any) -> int:
    """Two per multiply-add of the convolution, as PyTorch's own counter; BN and activation count nothing."""
    n, c_out, height, width = result_size(arguments, shapes=True)
    _, c_in, kernel_h, kernel_w = arguments[1]
    return int(2 * n * c_out * height * width * c_in * kernel_h * kernel_w)


def checked(
    op: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    bn: BatchNorm | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    activation: str,
    *,
    depthwise: bool,
) -> tuple[Any, ...]:
    """``ARGUMENTS``, checked, cast and in NHWC; the uint8 images of a dense convolution as they are."""
    check_images(op, x, uint8=not depthwise)
    uint8 = x.dtype == torch.uint8
    x, weight = x if uint8 else channels_last(cast(x)), cast(weight)
    if weight.dim() != 4:
        raise ValueError(f"{op}: weight must have 4 dimensions, got {tuple(weight.shape)}")
    channels = weight.shape[0]
    expected = (x.shape[1], 1) if depthwise else (channels, x.shape[1])
    check_beside(op, "weight", weight, x, (*expected, *weight.shape[2:]), dtype=not uint8)
    norm = flat_norm(op, x, channels, bias, bn)
    strides, dilations = pair(op, "stride", stride), pair(op, "dilation", dilation)
    sides = four_sides(op, padding)
    check_output(op, x, weight.shape[2:], strides, sides, dilations)
    check_activation(op, activation)
    return x, weight, bias, *norm, strides, sides, dilations, activation
