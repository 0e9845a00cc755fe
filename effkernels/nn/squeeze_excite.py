"""Squeeze-excitation as a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from effkernels import ops
from effkernels.dispatch import layers_traced
from effkernels.nn._plain import any_global_hook, is_plain
from effkernels.nn.conv_bn_act import activation_module, activation_name


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from all channels' means (Hu et al. 2018, arXiv 1709.01507).

    Args:
        channels: of the feature map.
        squeeze_channels: between the two 1x1 convolutions ``reduce`` and ``expand``.
        activation: between them.
    """

    def __init__(self, channels: int, squeeze_channels: int, *, activation: str = "silu") -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze_channels, 1)
        self.act = activation_module(activation)
        self.expand = nn.Conv2d(squeeze_channels, channels, 1)

    def fusible(self) -> bool:
        """Whether an op computes exactly what the inner modules would, now."""
        plain = is_plain(self.reduce, nn.Conv2d) and is_plain(self.expand, nn.Conv2d)
        return plain and activation_name(self.act) is not None

    def operands(self) -> ops.Gate:
        """What an op takes of this layer."""
        reduce, expand = self.reduce, self.expand
        return ops.Gate(reduce.weight, reduce.bias, expand.weight, expand.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if any_global_hook() or layers_traced(x) or not self.fusible():
            pooled = x.mean((2, 3), keepdim=True)
            return x * torch.sigmoid(self.expand(self.act(self.reduce(pooled))))
        name = activation_name(self.act)
        assert name is not None
        return ops.squeeze_excite(x, *self.operands(), activation=name)
