"""The first two convolutions of an MBConv block by one call.

The expanded map between them is the largest of a block; see ``level2`` in :mod:`effkernels.analysis.cost`. The
cuda backend has one kernel for both, for large maps. Elsewhere the two ops run one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from effkernels import reference
from effkernels.ops._arguments import (
    Conv,
    cast,
    channels_last,
    check_activation,
    check_beside,
    check_images,
    check_output,
    checked_norm,
    four_sides,
    matrix,
    pair,
)
from effkernels.ops._define import Op, define, nhwc_empty
from effkernels.ops._schema import ConvNorm, Pair, Sides, named, schema
from effkernels.ops._window import WindowArguments
from effkernels.ops._window import flops as window_flops
from effkernels.ops.depthwise_conv_bn_act import DEPTHWISE, DEPTHWISE_POOL
from effkernels.ops.pointwise_conv_bn_act import POINTWISE, PointwiseArguments
from effkernels.reference.convolution import output_size
from effkernels.reference.elementwise import accumulate_dtype


class ExpandDepthwiseArguments(NamedTuple):
    """Two groups of :class:`ConvNorm`, and the depthwise convolution's window; ``expand_weight`` is a matrix."""

    x: Tensor
    expand_weight: Tensor
    expand_bias: Tensor | None
    expand_bn_weight: Tensor | None
    expand_bn_bias: Tensor | None
    expand_running_mean: Tensor | None
    expand_running_var: Tensor | None
    expand_eps: float
    depthwise_weight: Tensor
    depthwise_bias: Tensor | None
    depthwise_bn_weight: Tensor | None
    depthwise_bn_bias: Tensor | None
    depthwise_running_mean: Tensor | None
    depthwise_running_var: Tensor | None
    depthwise_eps: float
    stride: Pair
    padding: Sides
    activation: str

    @property
    def expand(self) -> ConvNorm:
        """The 1x1 convolution."""
        return ConvNorm(
            self.expand_weight,
            self.expand_bias,
            self.expand_bn_weight,
            self.expand_bn_bias,
            self.expand_running_mean,
            self.expand_running_var,
            self.expand_eps,
        )

    @property
    def depthwise(self) -> ConvNorm:
        """The depthwise convolution."""
        return ConvNorm(
            self.depthwise_weight,
            self.depthwise_bias,
            self.depthwise_bn_weight,
            self.depthwise_bn_bias,
            self.depthwise_running_mean,
            self.depthwise_running_var,
            self.depthwise_eps,
        )


def on_window(
    x: Any, depthwise: ConvNorm, stride: Pair, padding: Sides, activation: str
) -> WindowArguments:
    """The arguments of a block's depthwise convolution on ``x``, a map or a shape; blocks have no dilation."""
    return WindowArguments(x, *depthwise, stride, padding, (1, 1), activation)


def _compose(
    pointwise: Callable[..., Any], depthwise: Callable[..., Any], a: ExpandDepthwiseArguments
) -> Any:
    expand = PointwiseArguments(a.x, *a.expand, gate=None, residual=None, activation=a.activation)
    wide = pointwise(*expand)
    return depthwise(*on_window(wide, a.depthwise, a.stride, a.padding, a.activation))


def _reference(a: ExpandDepthwiseArguments) -> Any:
    return _compose(reference.pointwise_conv_bn_act, reference.depthwise_conv_bn_act, a)


def _reference_pool(a: ExpandDepthwiseArguments) -> Any:
    return _compose(reference.pointwise_conv_bn_act, reference.depthwise_conv_bn_act_pool, a)


def _of_ops(a: ExpandDepthwiseArguments) -> Any:
    return _compose(POINTWISE, DEPTHWISE, a)


def _of_ops_pool(a: ExpandDepthwiseArguments) -> Any:
    return _compose(POINTWISE, DEPTHWISE_POOL, a)


def _fake(a: ExpandDepthwiseArguments) -> Tensor:
    channels, _, *kernel = a.depthwise_weight.shape
    size = output_size(a.x.shape[2:], kernel, a.stride, a.padding, (1, 1))
    return nhwc_empty(a.x, (a.x.shape[0], channels, *size))


def _fake_pool(a: ExpandDepthwiseArguments) -> tuple[Tensor, Tensor]:
    y = _fake(a)
    return y, y.new_empty(y.shape[:2], dtype=accumulate_dtype(y.dtype))


def _flops(a: Any) -> int:
    n, c_in, height, width = a.x
    wide = (n, a.expand_weight[0], height, width)
    window = on_window(wide, a.depthwise, a.stride, a.padding, a.activation)
    return int(2 * n * height * width * c_in * wide[1]) + window_flops(window)


EXPAND_DEPTHWISE = define(
    Op(
        "expand_depthwise_conv_bn_act",
        schema(ExpandDepthwiseArguments, "Tensor"),
        named(ExpandDepthwiseArguments, _reference),
        named(ExpandDepthwiseArguments, _fake),
        named(ExpandDepthwiseArguments, _flops),
        composed=named(ExpandDepthwiseArguments, _of_ops),
    )
)
EXPAND_DEPTHWISE_POOL = define(
    Op(
        "expand_depthwise_conv_bn_act_pool",
        schema(ExpandDepthwiseArguments, "(Tensor, Tensor)"),
        named(ExpandDepthwiseArguments, _reference_pool),
        named(ExpandDepthwiseArguments, _fake_pool),
        named(ExpandDepthwiseArguments, _flops),
        composed=named(ExpandDepthwiseArguments, _of_ops_pool),
    )
)


def checked_pointwise(op: str, name: str, x: Tensor, conv: Conv, c_in: int) -> ConvNorm:
    """A 1x1 convolution with ``c_in`` input channels as the schemas take it, checked and cast."""
    weight = cast(matrix(op, f"{name}.weight", conv.weight))
    check_beside(op, f"{name}.weight", weight, x, (weight.shape[0], c_in), dtype=True)
    return ConvNorm(weight, *checked_norm(op, x, weight.shape[0], conv.bias, conv.bn))


def checked_depthwise(op: str, x: Tensor, conv: Conv, channels: int) -> ConvNorm:
    """The same for a depthwise convolution."""
    weight = cast(conv.weight)
    if weight.dim() != 4:
        raise ValueError(
            f"{op}: depthwise.weight must have 4 dimensions, got {tuple(weight.shape)}"
        )
    shape = (channels, 1, *weight.shape[2:])
    check_beside(op, "depthwise.weight", weight, x, shape, dtype=True)
    return ConvNorm(weight, *checked_norm(op, x, channels, conv.bias, conv.bn))


def checked_window(
    op: str,
    x: Tensor,
    kernel: Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    activation: str,
) -> tuple[Pair, Sides]:
    """Stride, padding and activation of the depthwise convolution, checked."""
    strides, sides = pair(op, "stride", stride), four_sides(op, padding)
    check_output(op, x, kernel, strides, sides, (1, 1))
    check_activation(op, activation)
    return strides, sides


def _checked(
    op: str,
    x: Tensor,
    expand: Conv,
    depthwise: Conv,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    activation: str,
) -> ExpandDepthwiseArguments:
    check_images(op, x)
    x = channels_last(cast(x))
    first = checked_pointwise(op, "expand", x, expand, x.shape[1])
    second = checked_depthwise(op, x, depthwise, first.weight.shape[0])
    strides, sides = checked_window(op, x, second.weight.shape[2:], stride, padding, activation)
    return ExpandDepthwiseArguments(x, *first, *second, strides, sides, activation)


def expand_depthwise_conv_bn_act(
    x: Tensor,
    expand: Conv,
    depthwise: Conv,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    activation: str = "silu",
) -> Tensor:
    """``activation(bn(depthwise_conv(activation(bn(conv1x1(x))))))``; the expanded map is not returned.

    The expanded map is rounded to the dtype of ``x``, and padded with zeros for the depthwise convolution.

    The cuda backend has one kernel for both, in float16 and bfloat16, for 16 to 40 input channels and multiples of 48
    expanded ones, 3x3 windows and 5x5 of stride 2. It takes it for maps of 56 pixels and more on each side and enough
    images, on GPUs whose blocks have 227 KiB of shared memory. It computes patches of
    2x4 results, and a NaN or infinity anywhere in the window of a patch makes NaN of all of the patch that would be
    finite without it, in the same channel. Two kernels run instead with ``EFFKERNELS_CHANNELS_APART=1`` or
    ``EFFKERNELS_EXPAND_DEPTHWISE=two``; with ``EFFKERNELS_EXPAND_DEPTHWISE=one`` maps of any size take one. Both are
    read at each call.

    Args:
        x: (N, C_in, H, W), floating point.
        expand: 1x1 convolution, (E, C_in) or (E, C_in, 1, 1), with bias and BN as in
            :func:`pointwise_conv_bn_act`.
        depthwise: k x k depthwise convolution, (E, 1, kernel height, kernel width), with bias and BN.
        stride, padding: of the depthwise convolution, as in :func:`depthwise_conv_bn_act`.
        activation: of both: "silu", "relu", "relu6", "hardswish" or "identity".

    Returns:
        (N, E, H_out, W_out), dtype of ``x``, channels_last.

    Raises:
        ValueError: shapes, devices or values do not fit; the message names the argument.
        TypeError: a tensor is not floating point, or dtypes differ outside of autocast.
    """
    op = "expand_depthwise_conv_bn_act"
    arguments = _checked(op, x, expand, depthwise, stride, padding, activation)
    y: Tensor = EXPAND_DEPTHWISE(*arguments)
    return y


def expand_depthwise_conv_bn_act_pool(
    x: Tensor,
    expand: Conv,
    depthwise: Conv,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    activation: str = "silu",
) -> tuple[Tensor, Tensor]:
    """:func:`expand_depthwise_conv_bn_act` and the mean of its result over height and width.

    Returns:
        The result, and its mean: (N, E), float32 (float64 for float64), as of
        :func:`depthwise_conv_bn_act_pool`.

    Arguments and errors are those of :func:`expand_depthwise_conv_bn_act`.
    """
    op = "expand_depthwise_conv_bn_act_pool"
    arguments = _checked(op, x, expand, depthwise, stride, padding, activation)
    y, pooled = EXPAND_DEPTHWISE_POOL(*arguments)
    return y, pooled
