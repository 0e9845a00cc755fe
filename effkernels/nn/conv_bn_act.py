"""Convolution + BatchNorm + activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from effkernels import ops, reference
from effkernels.dispatch import is_plain_call, layers_traced, traced
from effkernels.nn._depthwise_training import depthwise, trains_here
from effkernels.nn._plain import any_global_hook, is_plain
from effkernels.nn.drop_path import keeps_all
from effkernels.reference.elementwise import channels_last

_ACTIVATION_MODULES: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "identity": nn.Identity,
}
_ACTIVATION_NAMES = {module: name for name, module in _ACTIVATION_MODULES.items()}

# The op of a dense k x k convolution is made for images. From so many input channels on PyTorch's runs in its
# place: on CPUs it is as fast at 24 to 128 channels and up to three times as fast at 256 (slower at 512; one core of an
# AMD EPYC with AVX-512), and on GPUs it multiplies on tensor cores, which the op does not.
WIDE_CHANNELS = 16


def activation_module(name: str) -> nn.Module:
    """The module for an activation, by the name that the ops use."""
    return _ACTIVATION_MODULES[name]()


def activation_name(module: nn.Module) -> str | None:
    """The name that the ops use for an activation module; None if they do not have it, or it has hooks."""
    if not is_plain(module, *_ACTIVATION_NAMES):
        return None
    if isinstance(module, nn.ReLU6) and (module.min_val, module.max_val) != (0.0, 6.0):
        return None
    return _ACTIVATION_NAMES[type(module)]


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _same_padding(
    x: Tensor,
    kernel: tuple[int, ...],
    stride: int | tuple[int, ...],
    dilation: int | tuple[int, ...],
) -> tuple[int, int, int, int]:
    strides, dilations = _pair(stride), _pair(dilation)
    top, bottom = reference.same_padding(x.shape[2], kernel[0], strides[0], dilations[0])
    left, right = reference.same_padding(x.shape[3], kernel[1], strides[1], dilations[1])
    return top, bottom, left, right


class Conv2dSame(nn.Conv2d):
    """``nn.Conv2d`` with TensorFlow's 'SAME' padding, which depends on the input size; makes no padded copy."""

    def same_padding(self, x: Tensor) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) in pixels for this input."""
        return _same_padding(x, self._window(), self.stride, self.dilation)

    def _window(self) -> tuple[int, ...]:
        # kernel_size keeps its initial value if the weight is replaced; but tracers have no numbers for a
        # weight's shape.
        known = isinstance(self.weight, Tensor) and not traced()
        return tuple(self.weight.shape[2:]) if known else _pair(self.kernel_size)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        window = (self._window(), self.stride, self.dilation)
        return _conv2d_same(input, weight_of(self), self.bias, *window, self.groups)


@torch.fx.wrap  # one node in torch.fx's graphs: it reads height and width
def _conv2d_same(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel: tuple[int, ...],
    stride: int | tuple[int, ...],
    dilation: int | tuple[int, ...],
    groups: int,
) -> Tensor:
    padding = _same_padding(x, kernel, stride, dilation)
    return reference.conv2d(x, weight, bias, _pair(stride), padding, _pair(dilation), groups)


def weight_of(conv: nn.Conv2d) -> Tensor:
    """The convolution's weight, viewed so that its gradient gets the weight's own strides.

    PyTorch's kernels return gradients in the layout of the activations. For 1x1 and depthwise weights these
    have other strides in dimensions of size one, and DistributedDataParallel then warns and copies.
    """
    weight = conv.weight
    if type(weight) not in (Tensor, nn.Parameter):  # a sharded or traced weight
        return weight
    if not (torch.is_grad_enabled() and weight.requires_grad and is_plain_call()):
        return weight
    channels, height, width = weight.shape[1:]
    size = channels * height * width
    # In the backward pass the second view's gradient is made dense, and the first view gives it the weight's
    # strides.
    if weight.stride() == (size, height * width, width, 1):
        return weight.view(-1).view(weight.shape)
    if weight.stride() == (size, 1, width * channels, channels):
        nhwc = weight.permute(0, 2, 3, 1)
        return nhwc.view(-1).view(nhwc.shape).permute(0, 3, 1, 2)
    return weight


def convolve(conv: nn.Module, x: Tensor) -> Tensor:
    """``conv(x)``; by our own kernels if ``conv`` is depthwise and trains on a CPU.

    Else, if ``conv`` is PyTorch's own convolution, with the weight of :func:`weight_of`.
    """
    y: Tensor
    if not plain_conv(conv) or type(x) is not Tensor or any_global_hook() or layers_traced(x):
        y = conv(x)
    elif _window_known(conv) and trains_here(conv, x):
        sides = padding_of(conv, x)
        y = depthwise(x, conv.weight, _pair(conv.stride), sides, _pair(conv.dilation))
    elif type(conv) is nn.Conv2d:
        y = conv._conv_forward(x, weight_of(conv), conv.bias)
    else:
        y = conv(x)
    return y


def padding_of(conv: nn.Conv2d, x: Tensor) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) in pixels for this input; of a convolution whose window is known."""
    if isinstance(conv, Conv2dSame):
        return conv.same_padding(x)
    assert isinstance(conv.padding, tuple)
    vertical, horizontal = conv.padding
    return vertical, vertical, horizontal, horizontal


def plain_conv(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is exactly an ``nn.Conv2d`` or a :class:`Conv2dSame`, unpatched and without hooks."""
    return is_plain(conv, nn.Conv2d, Conv2dSame) and getattr(conv, "weight", None) is not None


def plain_pointwise(conv: nn.Conv2d) -> bool:
    """Whether the convolution is just a matrix product over the channels."""
    return plain_conv(conv) and _window_known(conv) and _pointwise(conv)


def _window_known(conv: nn.Conv2d) -> bool:
    """Whether the attributes have the form that ``nn.Conv2d`` gives them, as the ops expect."""
    pairs = (conv.stride, conv.padding, conv.dilation)
    return conv.padding_mode == "zeros" and all(
        isinstance(pair, tuple) and len(pair) == 2 for pair in pairs
    )


def _pointwise(conv: nn.Conv2d) -> bool:
    window = (tuple(conv.weight.shape[2:]), conv.stride, conv.padding, conv.groups)
    return window == ((1, 1), (1, 1), (0, 0), 1)


class ConvBnAct(nn.Module):
    """A convolution, its BatchNorm and an activation; one op in inference.

    Depthwise if ``groups`` equals the number of channels. The inner modules ``conv``, ``bn`` and ``act`` are
    ordinary ones: if they have hooks, are in training mode or were replaced, they run one by one.

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
        """Whether an op would compute exactly what the inner modules compute in their current state."""
        if not plain_conv(self.conv) or not _window_known(self.conv):
            return False
        if activation_name(self.act) is None:
            return False
        bn: Any = self.bn
        if is_plain(bn, nn.Identity):
            return True
        if not is_plain(bn, nn.BatchNorm2d, nn.SyncBatchNorm) or bn.training:
            return False
        known = bn.running_mean is not None and bn.running_var is not None
        return known and bool(bn.eps > 0.0)

    def operands(self) -> ops.Conv:
        """The parameters that an op takes from this layer."""
        bn = None if isinstance(self.bn, nn.Identity) else ops.BatchNorm.of(self.bn)  # type: ignore[arg-type]
        return ops.Conv(weight_of(self.conv), self.conv.bias, bn)

    def padding(self, x: Tensor) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) in pixels for this input."""
        return padding_of(self.conv, x)  # fusible() has checked the window

    @property
    def pointwise(self) -> bool:
        """Whether the convolution is a matrix product over the channels."""
        return _pointwise(self.conv)

    @property
    def depthwise(self) -> bool:
        """Whether the convolution is depthwise: one filter per channel."""
        out_channels, group_channels = self.conv.weight.shape[:2]
        return self.conv.groups == out_channels and group_channels == 1

    @property
    def wide(self) -> bool:
        """Whether it is a dense convolution of so many channels that it is left to PyTorch."""
        dense = self.conv.groups == 1 and not self.pointwise
        return dense and self.conv.weight.shape[1] >= WIDE_CHANNELS

    def forward(self, x: Tensor, mean: Tensor | None = None, std: Tensor | None = None) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H_out, W_out).

        With ``mean`` and ``std``, (C_in,) each, ``x`` is normalised first and may be uint8.
        """
        conv, name = self.conv, self._op_activation(x)
        dense = name is not None and conv.groups == 1 and not self.pointwise and not self.depthwise
        if not dense and mean is not None:
            x = channels_last(reference.normalise(x, mean, std, conv.weight.dtype))
        if name is None or (conv.groups != 1 and not self.depthwise):
            y: Tensor = self.act(self.bn(convolve(conv, x)))
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

    def _op_activation(self, x: Tensor) -> str | None:
        """The activation, for an op that computes the layer; None where the inner modules have to run."""
        if any_global_hook() or layers_traced(x) or not self.fusible() or self.wide:
            return None
        return activation_name(self.act)

    def add_to(self, residual: Tensor, x: Tensor, drop_path: nn.Module) -> Tensor:
        """``drop_path(self(x)) + residual``, of a 1x1 convolution in one pass over memory where that can be."""
        drops = not keeps_all(drop_path) or not is_plain(self, ConvBnAct)
        name = None if drops else self._op_activation(x)
        if name is not None and self.pointwise:
            shape = (x.shape[0], self.conv.weight.shape[0], *x.shape[2:])
            if residual.shape == shape and residual.dtype == x.dtype:
                return ops.pointwise_conv_bn_act(
                    x, *self.operands(), residual=residual, activation=name
                )
        y: Tensor = drop_path(self(x)) + residual
        return y

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the BatchNorm into the convolution's weight and bias, in place. For inference only.

        A layer that must run module by module, because an inner module has hooks or was replaced, stays as it
        is.
        """
        if isinstance(self.bn, nn.Identity) or not is_plain(self, ConvBnAct) or not self.fusible():
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


def layers_like(**options: Any) -> Callable[..., ConvBnAct]:
    """Makes the layers of a block, which share ``options``, from channels, kernel size and activation."""

    def make(
        in_channels: int, out_channels: int, kernel_size: int, activation: str, **own: Any
    ) -> ConvBnAct:
        return ConvBnAct(
            in_channels, out_channels, kernel_size, activation=activation, **options, **own
        )

    return make
