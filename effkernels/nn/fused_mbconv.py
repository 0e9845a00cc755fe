"""The inverted bottleneck whose expansion is a dense convolution."""

from __future__ import annotations

from torch import Tensor, nn

from effkernels.nn.conv_bn_act import layers_like
from effkernels.nn.drop_path import DropPath
from effkernels.nn.squeeze_excite import SqueezeExcite


class FusedMBConv(nn.Module):
    """Expand (k x k, dense), squeeze-excite, project (1x1), add: MBConv with its first two convolutions in one.

    Source: Gupta and Akin 2020 (arXiv 2003.02838), Tan and Le 2021 (EfficientNetV2, arXiv 2104.00298). Where
    ``expand_ratio`` is 1, ``expand`` is None and ``project`` is the only convolution: k x k, with the activation.
    ``squeeze_excite`` is None where ``squeeze_channels`` is 0, as in EfficientNetV2.

    Args:
        in_channels, out_channels: of the block; ``in_channels * expand_ratio`` channels inside.
        kernel_size, stride: of the dense convolution.
        expand_ratio: at least 1.
        squeeze_channels: inner width of squeeze-excitation; 0 for none.
        drop_path: probability, in training, to skip the block for a sample.
        activation, padding, bn_eps, bn_momentum: see :class:`ConvBnAct`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        expand_ratio: int = 4,
        stride: int = 1,
        squeeze_channels: int = 0,
        drop_path: float = 0.0,
        activation: str = "silu",
        padding: str = "symmetric",
        bn_eps: float = 1e-3,
        bn_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        conv = layers_like(padding=padding, bn_eps=bn_eps, bn_momentum=bn_momentum)
        wide = in_channels * expand_ratio
        self.residual = stride == 1 and in_channels == out_channels
        self.expand = (
            conv(in_channels, wide, kernel_size, activation, stride=stride)
            if expand_ratio != 1
            else None
        )
        self.squeeze_excite = (
            SqueezeExcite(wide, squeeze_channels, activation=activation)
            if squeeze_channels
            else None
        )
        self.project = (
            conv(wide, out_channels, kernel_size, activation, stride=stride)
            if self.expand is None
            else conv(wide, out_channels, 1, "identity")
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = x if self.expand is None else self.expand(x)
        if self.squeeze_excite is not None:
            y = self.squeeze_excite(y)
        return self.project.add_to(x, y, self.drop_path) if self.residual else self.project(y)
