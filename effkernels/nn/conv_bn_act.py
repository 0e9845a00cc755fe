"""Convolution + BatchNorm + activation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effkernels import ops, reference
from effkernels.dispatch import layers_traced
from effkernels.nn._plain import any_global_hook, is_plain
from effkernels.reference.elementwise import channels_last

_ACTIVATION_MODULES: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "identity": nn.Identity,
}
_ACTIVATION_NAMES = {module: name for name, module in _ACTIVATION_MODULES.items()}


def activation_module(name: str) -> nn.Module:
    """The module of an activation that the ops know by ``name``."""
    return _ACTIVATION_MODULES[name]()


def activation_name(module: nn.Module) -> str | None:
    """The ops' name of an activation module; None where they have none, or it carries hooks."""
    return _ACTIVATION_NAMES[type(module)] if is_plain(module, *_ACTIVATION_NAMES) else None


def _same_padding(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int, int, int]:
    top, bottom = reference.same_padding(x.shape[2], kernel[0], stride[0], dilation[0])
    left, right = reference.same_padding(x.shape[3], kernel[1], stride[1], dilation[1])
    return top, bottom, left, right


class Conv2dSame(nn.Conv2d):
    """``nn.Conv2d`` with TensorFlow's 'SAME' padding, which depends on the input size; no padded copy."""

    def same_padding(self, x: Tensor) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) in pixels for this input."""
        return _same_padding(x, self.kernel_size, self.stride, self.dilation)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        window = (self.kernel_size, self.stride, self.dilation)
        return _conv2d_same(input, self.weight, self.bias, *window, self.groups)


@torch.fx.wrap  # a node of its own in torch.fx's graphs: it asks for height and width
def _conv2d_same(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    padding = _same_padding(x, kernel, stride, dilation)
    return reference.conv2d(x, weight, bias, stride, padding, dilation, groups)


class ConvBnAct(nn.Module):
    """A convolution, its BatchNorm and an activation; one op in inference.

    Depthwise where ``groups`` is the number of channels. The inner modules ``conv``, ``bn`` and ``act`` are
    ordinary ones: with hooks on them, in training, or replaced by others, they run one by one.

    Args:
        in_channels, out_channels, kernel_size, stride, groups: as in ``nn.Conv2d``.
        activation: "silu", "relu", "relu6", "hardswish" or "identity".
        padding: "symmetric" (kernel_size // 2 on all sides) or "same" (TensorFlow's).
        bn_eps, bn_momentum: as in ``nn.BatchNorm2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: str = "silu",
        padding: str = "symmetric",
        bn_eps: float = 1e-3,
        bn_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        same = padding == "same" and kernel_size > 1
        self.conv = (Conv2dSame if same else nn.Conv2d)(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=0 if same else kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.bn: nn.Module = nn.BatchNorm2d(out_channels, bn_eps, bn_momentum)
        self.act = activation_module(activation)

    def fusible(self) -> bool:
        """Whether an op computes exactly what the inner modules would, now."""
        conv, bn = self.conv, self.bn
        if not is_plain(conv, nn.Conv2d, Conv2dSame) or conv.padding_mode != "zeros":
            return False
        if not isinstance(conv.padding, tuple) or activation_name(self.act) is None:
            return False
        if is_plain(bn, nn.Identity):
            return True
        if not is_plain(bn, nn.BatchNorm2d, nn.SyncBatchNorm):
            return False
        return not bn.training and bn.running_mean is not None

    def operands(self) -> ops.Conv:
        """What an op takes of this layer."""
        bn = None if isinstance(self.bn, nn.Identity) else ops.BatchNorm.of(self.bn)  # type: ignore[arg-type]
        return ops.Conv(self.conv.weight, self.conv.bias, bn)

    def padding(self, x: Tensor) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) in pixels for this input."""
        if isinstance(self.conv, Conv2dSame):
            return self.conv.same_padding(x)
        assert isinstance(self.conv.padding, tuple)  # fusible() has seen to it
        vertical, horizontal = self.conv.padding
        return vertical, vertical, horizontal, horizontal

    @property
    def pointwise(self) -> bool:
        """Whether the convolution is a matrix product."""
        conv = self.conv
        small = conv.kernel_size == conv.stride == (1, 1)
        return small and conv.padding == (0, 0) and conv.groups == 1

    @property
    def depthwise(self) -> bool:
        """Whether the convolution keeps channels apart."""
        return self.conv.groups == self.conv.in_channels == self.conv.out_channels

    def forward(self, x: Tensor, mean: Tensor | None = None, std: Tensor | None = None) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H_out, W_out).

        With ``mean`` and ``std``, (C_in,) each, ``x`` is normalised first, and may be uint8.
        """
        conv = self.conv
        by_layers = any_global_hook() or layers_traced(x) or not self.fusible()
        name = None if by_layers else activation_name(self.act)
        dense = name is not None and conv.groups == 1 and not self.pointwise and not self.depthwise
        if not dense and mean is not None:
            x = channels_last(reference.normalise(x, mean, std, conv.weight.dtype))
        if name is None or (conv.groups != 1 and not self.depthwise):
            y: Tensor = self.act(self.bn(conv(x)))
            return y
        if self.pointwise:
            return ops.pointwise_conv_bn_act(x, *self.operands(), activation=name)
        options: dict[str, Any] = {
            "stride": conv.stride,
            "padding": self.padding(x),
            "dilation": conv.dilation,
            "activation": name,
        }
        if self.depthwise:
            return ops.depthwise_conv_bn_act(x, *self.operands(), **options)
        return ops.conv_bn_act(x, *self.operands(), **options, mean=mean, std=std)

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the BatchNorm into the convolution's weight and bias, in place. Inference only."""
        if isinstance(self.bn, nn.Identity):
            return
        bn = self.operands().bn
        assert bn is not None
        weight = self.conv.weight
        scale = (bn.running_var.double() + bn.eps).rsqrt()
        if bn.weight is not None:
            scale = scale * bn.weight.double()
        shift = -bn.running_mean.double() * scale
        if bn.bias is not None:
            shift = shift + bn.bias.double()
        if self.conv.bias is not None:
            shift = shift + self.conv.bias.double() * scale
        folded = weight.double() * scale[:, None, None, None]
        self.conv.weight = nn.Parameter(folded.to(weight.dtype), requires_grad=False)
        self.conv.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)
        self.bn = nn.Identity()
