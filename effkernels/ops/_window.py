"""Shared by all convolutions with a window: arguments, shapes, FLOPs and argument checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

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
    checked_norm,
    four_sides,
    pair,
)
from effkernels.ops._schema import Norm, Pair, Sides
from effkernels.reference.convolution import output_size

# At most so many channels make an image.
IMAGE_CHANNELS = 4


class WindowArguments(NamedTuple):
    """All arguments of a depthwise convolution; the first ones of a dense convolution."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    bn_weight: Tensor | None
    bn_bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    eps: float
    stride: Pair
    padding: Sides
    dilation: Pair
    activation: str

    @property
    def norm(self) -> Norm:
        """The bias and BatchNorm of the convolution."""
        statistics = (self.running_mean, self.running_var, self.eps)
        return Norm(self.bias, self.bn_weight, self.bn_bias, *statistics)


def result_size(arguments: Any, *, shapes: bool = False) -> tuple[int, int, int, int]:
    """(N, C_out, H_out, W_out) of a convolution with a window; ``shapes``: the arguments hold shapes, not tensors."""
    a = arguments
    x, weight = (a.x, a.weight) if shapes else (a.x.shape, a.weight.shape)
    return x[0], weight[0], *output_size(x[2:], weight[2:], a.stride, a.padding, a.dilation)


def flops(arguments: Any) -> int:
    """Two per multiply-add of the convolution, as in PyTorch's counter; BN and activation are not counted."""
    n, c_out, height, width = result_size(arguments, shapes=True)
    _, c_in, kernel_h, kernel_w = arguments.weight
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
) -> WindowArguments:
    """The arguments, checked, cast and in NHWC; images of a dense convolution stay as they are."""
    check_images(op, x, uint8=not depthwise)
    uint8 = x.dtype == torch.uint8
    x, weight = x if uint8 else cast(x), cast(weight)
    # The kernels of stems read NCHW as fast as NHWC; a copy would take about as long as they do.
    if depthwise or not (uint8 or (x.shape[1] <= IMAGE_CHANNELS and x.is_contiguous())):
        x = channels_last(x)
    if weight.dim() != 4:
        raise ValueError(f"{op}: weight must have 4 dimensions, got {tuple(weight.shape)}")
    channels = weight.shape[0]
    expected = (x.shape[1], 1) if depthwise else (channels, x.shape[1])
    check_beside(op, "weight", weight, x, (*expected, *weight.shape[2:]), dtype=not uint8)
    norm = checked_norm(op, x, channels, bias, bn)
    strides, dilations = pair(op, "stride", stride), pair(op, "dilation", dilation)
    sides = four_sides(op, padding)
    check_output(op, x, weight.shape[2:], strides, sides, dilations)
    check_activation(op, activation)
    return WindowArguments(x, weight, *norm, strides, sides, dilations, activation)
