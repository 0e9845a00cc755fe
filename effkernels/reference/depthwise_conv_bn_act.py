"""Depthwise convolution, BatchNorm and activation in plain PyTorch, alone and with the squeeze.

The arguments are those of the op schemas: see ``effkernels.ops`` for shapes and meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from effkernels.reference.conv_bn_act import conv_bn_act
from effkernels.reference.elementwise import accumulate_dtype


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
