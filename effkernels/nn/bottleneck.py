"""The bottleneck of ResNets."""

from __future__ import annotations

from torch import Tensor, nn

from effkernels.nn.conv_bn_act import activation_module, layers_like
from effkernels.nn.drop_path import DropPath
from effkernels.nn.squeeze_excite import SqueezeExcite


class Bottleneck(nn.Module):
    """Reduce (1x1), convolve (k x k, dense), restore (1x1), add, activate.

    Source: He et al. 2016 (arXiv 1512.03385), with the stride in the k x k convolution, as torchvision and timm have
    it. ``shortcut``, a 1x1 convolution with BatchNorm, takes the input to the shape of the result; it is None where
    that is the input's own. ``squeeze_excite`` stands before the addition (Hu et al. 2018, arXiv 1709.01507); it is
    None where ``squeeze_channels`` is 0.

    Args:
        in_channels, out_channels, kernel_size, stride: of the block.
        inner_channels: of the k x k convolution; a quarter of ``out_channels`` in ResNets.
        squeeze_channels: inner width of squeeze-excitation; 0 for none.
        activation, padding, bn_eps, bn_momentum: see :class:`ConvBnAct`.
        drop_path: probability, in training, to leave a sample to the shortcut alone.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        inner_channels: int,
        stride: int = 1,
        squeeze_channels: int = 0,
        activation: str = "relu",
        padding: str = "symmetric",
        bn_eps: float = 1e-3,
        bn_momentum: float = 0.01,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        conv = layers_like(padding=padding, bn_eps=bn_eps, bn_momentum=bn_momentum)
        self.reduce = conv(in_channels, inner_channels, 1, activation)
        self.conv = conv(inner_channels, inner_channels, kernel_size, activation, stride=stride)
        self.restore = conv(inner_channels, out_channels, 1, "identity")
        self.squeeze_excite = (
            SqueezeExcite(out_channels, squeeze_channels, activation=activation)
            if squeeze_channels
            else None
        )
        self.shortcut = (
            conv(in_channels, out_channels, 1, "identity", stride=stride)
            if stride != 1 or in_channels != out_channels
            else None
        )
        self.drop_path = DropPath(drop_path)
        self.act = activation_module(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.conv(self.reduce(x))
        x = x if self.shortcut is None else self.shortcut(x)
        if self.squeeze_excite is None:
            y = self.restore.add_to(x, y, self.drop_path)
        else:
            y = self.restore(y)
            y = self.squeeze_excite(y)
            y = self.drop_path(y) + x
        activated: Tensor = self.act(y)
        return activated
