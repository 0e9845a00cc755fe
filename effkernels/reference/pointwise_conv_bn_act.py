"""1x1 convolution with gate, BatchNorm, activation and residual, in plain PyTorch.

The arguments are those of the op schema: see ``effkernels.ops`` for shapes and meaning.
"""

from __future__ import annotations

from torch import Tensor

from effkernels.reference.conv_bn_act import conv_bn_act


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
