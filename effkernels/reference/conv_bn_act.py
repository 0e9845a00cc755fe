"""Dense convolution, BatchNorm and activation in plain PyTorch, optionally of images that are
normalised first.

The arguments are those of the op schema: see ``effkernels.ops`` for shapes and meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from effkernels.reference.convolution import conv2d
from effkernels.reference.elementwise import bn_act, channels_last, normalise


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
    """Dense convolution of ``x``, normalised if ``mean`` and ``std`` are given; BN; activation."""
    # Not the result, which is larger.
    x = channels_last(normalise(x, mean, std, weight.dtype))
    y = conv2d(x, weight, bias, stride, padding, dilation, groups)
    y = bn_act(y, bn_weight, bn_bias, running_mean, running_var, eps, activation)
    return channels_last(y)
