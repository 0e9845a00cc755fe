"""Convolutions with BatchNorm, activation, squeeze, gate and residual, in plain PyTorch.

The arguments are those of the op schemas: see ``effkernels.ops`` for shapes and meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from effkernels.reference.elementwise import accumulate_dtype, bn_act, channels_last, normalise


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Rows before and after one side of ``size`` that TensorFlow's 'SAME' pads.

    ``size`` may be a symbol of torch.export: nothing here asks for its value where the kernel covers the stride.
    """
    extent = (kernel - 1) * dilation + 1
    total = ((size + stride - 1) // stride - 1) * stride + extent - size
    if extent < stride:
        total = max(total, 0)
    return total // 2, total - total // 2


def _symmetric_axis(before: int, after: int, stride: int) -> tuple[int, int]:
    """The smallest symmetric padding whose outputs contain the asymmetric ones, and the first of these."""
    padding = max(before, after)
    padding += (before - padding) % stride
    return padding, (padding - before) // stride


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """``F.conv2d`` with ``padding`` as (top, bottom, left, right), without a padded copy of ``x``.

    Asymmetric padding is a slice of a convolution with symmetric padding: a row or a column more of the
    output costs less than a pass over the input. But where sizes are symbols (torch.export, torch.jit.trace):
    a copy is made for them, which is right whatever they are.
    """
    top, bottom, left, right = padding
    bias = None if bias is None else bias.to(weight.dtype)
    if not all(isinstance(side, int) for side in padding):
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, weight, bias, stride, 0, dilation, groups)
    if top == bottom and left == right:
        return F.conv2d(x, weight, bias, stride, (top, left), dilation, groups)
    pad_h, first_h = _symmetric_axis(top, bottom, stride[0])
    pad_w, first_w = _symmetric_axis(left, right, stride[1])
    y = F.conv2d(x, weight, bias, stride, (pad_h, pad_w), dilation, groups)
    height, width = output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return y[:, :, first_h : first_h + height, first_w : first_w + width]


def output_size(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int]:
    """Height and width of a convolution's output; ``padding`` is (top, bottom, left, right)."""
    top, bottom, left, right = padding
    height = (size[0] + top + bottom - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    width = (size[1] + left + right - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    return height, width


def conv_bn_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    bn_weight: Tensor | None,
    bn_bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    eps: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    groups: int = 1,
) -> Tensor:
    """Dense convolution of ``x``, normalised where there are ``mean`` and ``std``; BN, activation."""
    x = normalise(x, mean, std, weight.dtype)
    y = conv2d(x, weight, bias, stride, padding, dilation, groups)
    y = bn_act(y, bn_weight, bn_bias, running_mean, running_var, eps, activation)
    return channels_last(y)


def depthwise_conv_bn_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    bn_weight: Tensor | None,
    bn_bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    eps: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
) -> Tensor:
    """Depthwise convolution, BN, activation."""
    bn = (bn_weight, bn_bias, running_mean, running_var, eps)
    return conv_bn_act(
        x, weight, bias, *bn, stride, padding, dilation, activation, groups=x.shape[1]
    )


def depthwise_conv_bn_act_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    bn_weight: Tensor | None,
    bn_bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    eps: float,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
) -> tuple[Tensor, Tensor]:
    """The same, and its mean over height and width."""
    bn = (bn_weight, bn_bias, running_mean, running_var, eps)
    y = depthwise_conv_bn_act(x, weight, bias, *bn, stride, padding, dilation, activation)
    return y, y.mean((2, 3), dtype=accumulate_dtype(y.dtype))


def pointwise_conv_bn_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    bn_weight: Tensor | None,
    bn_bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    eps: float,
    gate: Tensor | None,
    residual: Tensor | None,
    activation: str,
) -> Tensor:
    """1x1 convolution of ``x * gate``, BN, activation, plus ``residual``."""
    if gate is not None:
        x = x * gate.to(x.dtype)[:, :, None, None]
    bn = (bn_weight, bn_bias, running_mean, running_var, eps)
    y = conv_bn_act(
        x, weight[:, :, None, None], bias, *bn, (1, 1), (0, 0, 0, 0), (1, 1), activation
    )
    return y if residual is None else y + residual
