"""The mobile inverted bottleneck with squeeze-excitation."""

from __future__ import annotations

from torch import Tensor, nn

from effkernels import ops
from effkernels.dispatch import layers_traced
from effkernels.nn._plain import any_global_hook, is_plain
from effkernels.nn.conv_bn_act import ConvBnAct, activation_name, layers_like
from effkernels.nn.drop_path import DropPath, keeps_all
from effkernels.nn.squeeze_excite import SqueezeExcite
from effkernels.reference.convolution import output_size


class MBConv(nn.Module):
    """Expand (1x1), depthwise (k x k), squeeze-excite, project (1x1), add. One op in inference.

    Source: Sandler et al. 2018 (arXiv 1801.04381), Tan and Le 2019 (arXiv 1905.11946). ``expand`` is None
    if ``expand_ratio`` is 1; ``squeeze_excite`` is None if ``squeeze_channels`` is 0.

    Args:
        in_channels, out_channels, kernel_size, stride: of the block; ``in_channels * expand_ratio``
                channels in between.
        expand_ratio: at least 1.
        squeeze_channels: width between the two layers of squeeze-excitation; 0 for no squeeze-excitation.
        activation, padding, bn_eps, bn_momentum: see :class:`ConvBnAct`.
        drop_path: probability of skipping the block for a sample, in training.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        expand_ratio: int = 6,
        squeeze_channels: int = 0,
        activation: str = "silu",
        padding: str = "symmetric",
        bn_eps: float = 1e-3,
        bn_momentum: float = 0.01,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        conv = layers_like(padding=padding, bn_eps=bn_eps, bn_momentum=bn_momentum)
        wide = in_channels * expand_ratio
        self.residual = stride == 1 and in_channels == out_channels
        self.expand = conv(in_channels, wide, 1, activation) if expand_ratio != 1 else None
        self.depthwise = conv(wide, wide, kernel_size, activation, stride=stride, groups=wide)
        self.squeeze_excite = (
            SqueezeExcite(wide, squeeze_channels, activation=activation)
            if squeeze_channels
            else None
        )
        self.project = conv(wide, out_channels, 1, "identity")
        self.drop_path = DropPath(drop_path)

    def fusible(self) -> str | None:
        """The activation of the block if one op computes exactly what its layers compute now; else None."""
        layers = [self.depthwise, self.project]
        layers += [] if self.expand is None else [self.expand]
        if not all(is_plain(layer, ConvBnAct) and layer.fusible() for layer in layers):
            return None
        if not all(layer.pointwise for layer in layers if layer is not self.depthwise):
            return None
        if not self.depthwise.depthwise or self.depthwise.conv.dilation != (1, 1):
            return None
        names = [activation_name(layer.act) for layer in layers if layer is not self.project]
        if self.squeeze_excite is not None:
            if (
                not is_plain(self.squeeze_excite, SqueezeExcite)
                or not self.squeeze_excite.fusible()
            ):
                return None
            names.append(activation_name(self.squeeze_excite.act))
        if not isinstance(self.project.act, nn.Identity) or len(set(names)) != 1:
            return None
        # Only blocks with a residual call it.
        return names[0] if not self.residual or keeps_all(self.drop_path) else None

    def _adds_same_size(self, x: Tensor) -> bool:
        """Whether ``x`` has the output's shape. PyTorch's addition would broadcast; the op does not."""
        if not self.residual:
            return True
        size = output_size(
            x.shape[2:],
            self.depthwise.conv.weight.shape[2:],
            self.depthwise.conv.stride,
            self.depthwise.padding(x),
            (1, 1),
        )
        return (self.project.conv.weight.shape[0], *size) == tuple(x.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        by_layers = any_global_hook() or layers_traced(x)
        activation = None if by_layers else self.fusible()
        if activation is not None and self._adds_same_size(x):
            return ops.mbconv(
                x,
                None if self.expand is None else self.expand.operands(),
                self.depthwise.operands(),
                None if self.squeeze_excite is None else self.squeeze_excite.operands(),
                self.project.operands(),
                stride=self.depthwise.conv.stride,
                padding=self.depthwise.padding(x),
                residual=bool(self.residual),
                activation=activation,
            )
        y: Tensor = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        if self.squeeze_excite is not None:
            y = self.squeeze_excite(y)
        y = self.project(y)
        return self.drop_path(y) + x if self.residual else y
