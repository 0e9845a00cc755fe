"""Squeeze-excitation as a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from effkernels import ops
from effkernels.dispatch import layers_traced
from effkernels.nn._plain import any_global_hook
from effkernels.nn.conv_bn_act import (
    activation_module,
    activation_name,
    convolve,
    plain_pointwise,
    weight_of,
)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all channels (Hu et al. 2018, arXiv
    1709.01507).

    Args:
        channels: of the feature map.
        squeeze_channels: width between the two 1x1 convolutions ``reduce`` and ``expand``.
        activation: between the two.
    """

    def __init__(self, channels: int, squeeze_channels: int, *, activation: str = "silu") -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze_channels, 1)
        self.act = activation_module(activation)
        self.expand = nn.Conv2d(squeeze_channels, channels, 1)

    def fusible(self) -> bool:
        """Whether an op would compute exactly what the inner modules compute in their current state."""
        reduce, expand = self.reduce, self.expand
        if not plain_pointwise(reduce) or not plain_pointwise(expand):
            return False
        # PyTorch would broadcast a gate of one channel; the op does not.
        back = reduce.weight.shape[1] == expand.weight.shape[0]
        return back and activation_name(self.act) is not None

    def operands(self) -> ops.Gate:
        """The parameters that an op takes from this layer."""
        reduce, expand = self.reduce, self.expand
        return ops.Gate(weight_of(reduce), reduce.bias, weight_of(expand), expand.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if any_global_hook() or layers_traced(x) or not self.fusible():
            pooled = x.mean((2, 3), keepdim=True)
            hidden = self.act(convolve(self.reduce, pooled))
            return x * torch.sigmoid(convolve(self.expand, hidden))
        name = activation_name(self.act)
        assert name is not None
        return ops.squeeze_excite(x, *self.operands(), activation=name)
