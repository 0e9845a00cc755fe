"""Convolutions with any padding in plain PyTorch, and the sizes of their results."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Rows before and after a dimension of ``size`` that TensorFlow's 'SAME' padding adds.

    ``size`` may be a symbol of torch.export: its value is not needed if the kernel covers the stride.
    """
    extent = (kernel - 1) * dilation + 1
    total = ((size + stride - 1) // stride - 1) * stride + extent - size
    if extent < stride:
        total = max(total, 0)
    return total // 2, total - total // 2


def _symmetric_axis(before: int, after: int, stride: int) -> tuple[int, int]:
    """The smallest symmetric padding whose outputs include those wanted, and the index of the first of them."""
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

    Asymmetric padding is a slice of a convolution with symmetric padding: one more row or column of the
    output costs less than a pass over the input. But where sizes are symbols (torch.export, torch.jit.trace)
    a padded copy is made, which is right for every size.
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
