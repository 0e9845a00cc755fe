"""The block of MobileNetV1."""

from __future__ import annotations

from torch import Tensor, nn

from effkernels.nn.conv_bn_act import layers_like


class SeparableConv(nn.Module):
    """Depthwise (k x k), then pointwise (1x1), each with BatchNorm and activation; nothing is added.

    Source: Howard et al. 2017 (arXiv 1704.04861), Figure 3. One op for each of the two in inference. (:class:`MBConv`
    without expansion has no activation behind its 1x1 convolution, and adds its input.)

    Args:
        in_channels, out_channels: of the block.
        kernel_size, stride: of the depthwise convolution.
        activation, padding, bn_eps, bn_momentum: see :class:`ConvBnAct`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        activation: str = "relu6",
        padding: str = "symmetric",
        bn_eps: float = 1e-3,
        bn_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        conv = layers_like(padding=padding, bn_eps=bn_eps, bn_momentum=bn_momentum)
        self.depthwise = conv(
            in_channels, in_channels, kernel_size, activation, stride=stride, groups=in_channels
        )
        self.pointwise = conv(in_channels, out_channels, 1, activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.pointwise(self.depthwise(x))
        return y
