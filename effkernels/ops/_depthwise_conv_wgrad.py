"""The gradient of a depthwise convolution's weight: what training runs in the place of PyTorch's own, where a backend
has a kernel for it.

PyTorch's on CPUs (oneDNN) is fast for 3x3 kernels, and takes up to forty times as long for 5x5 ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from effkernels.ops._define import Op, declare
from effkernels.ops._schema import Pair, Sides, named, schema


class WgradArguments(NamedTuple):
    """``grad`` is the gradient of the result; of ``weight`` only the shape matters."""

    x: Tensor
    grad: Tensor
    weight: Tensor
    stride: Pair
    padding: Sides
    dilation: Pair


def _rows(weight: Tensor) -> tuple[int, int]:
    return weight.shape[0], weight.shape[2] * weight.shape[3]


def _reference(a: WgradArguments) -> Tensor:
    top, bottom, left, right = a.padding
    x = F.pad(a.x, (left, right, top, bottom))
    found: Any = conv2d_weight
    grad: Tensor = found(
        x, tuple(a.weight.shape), a.grad, a.stride, 0, a.dilation, a.weight.shape[0]
    )
    return grad.reshape(_rows(a.weight))


def _fake(a: WgradArguments) -> Tensor:
    return a.weight.new_empty(_rows(a.weight))


def _flops(a: Any) -> int:
    n, channels, height, width = a.grad
    return int(2 * n * channels * height * width * a.weight[2] * a.weight[3])


DEPTHWISE_WGRAD = declare(
    Op(
        "depthwise_conv_wgrad",
        schema(WgradArguments, "Tensor"),
        named(WgradArguments, _reference),
        named(WgradArguments, _fake),
        named(WgradArguments, _flops),
        composed=named(WgradArguments, _reference),  # no warning where a backend has no kernel
        differentiable=False,
    )
)
"""(C, kernel height * kernel width), float32, of x (N, C, H, W) and grad (N, C, H_out, W_out)."""
