"""Layers as separate PyTorch calls, as a user's modules run them; fused kernels are compared with these."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from effkernels import ops

# In place if PyTorch has it.
_ACTIVATIONS: dict[str, nn.Module] = {
    "silu": nn.SiLU(True),
    "relu": nn.ReLU(True),
    "relu6": nn.ReLU6(True),
    "hardswish": nn.Hardswish(True),
    "identity": nn.Identity(),
}


def act(x: Tensor, activation: str) -> Tensor:
    """The activation, in place if PyTorch has it."""
    result: Tensor = _ACTIVATIONS[activation](x)
    return result


def four_dimensional(weight: Tensor) -> Tensor:
    """The weight of a 1x1 convolution with 4 dimensions, as PyTorch's convolutions take it."""
    return weight if weight.dim() == 4 else weight[:, :, None, None]


def conv(
    x: Tensor,
    layer: ops.Conv,
    activation: str,
    *,
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] | int = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution, BatchNorm if given, activation; ``padding`` is (top, bottom, left, right)."""
    top, bottom, left, right = padding
    if (top, left) != (bottom, right):
        x = F.pad(x, (left, right, top, bottom))
        top = left = 0
    weight = four_dimensional(layer.weight)
    # Positional arguments: `specs.oracle_convolutions` intercepts these calls.
    x = F.conv2d(x, weight, layer.bias, stride, (top, left), dilation, groups)
    if layer.bn is not None:
        weight, bias, mean, var, eps = layer.bn
        x = F.batch_norm(x, mean, var, weight, bias, eps=eps)
    return act(x, activation)


def squeeze_excite(x: Tensor, weights: ops.Gate, activation: str) -> Tensor:
    """Mean, two 1x1 convolutions, and the map multiplied by the gate."""
    reduce_weight, reduce_bias, expand_weight, expand_bias = weights
    pooled = x.mean((2, 3), keepdim=True)
    hidden = act(F.conv2d(pooled, four_dimensional(reduce_weight), reduce_bias), activation)
    gate = F.conv2d(hidden, four_dimensional(expand_weight), expand_bias).sigmoid()
    return x * gate
