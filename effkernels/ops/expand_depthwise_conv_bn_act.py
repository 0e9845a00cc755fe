"""The first two convolutions of an MBConv block as one: between them no feature map goes through memory.

The expanded map is the largest of a block; see ``level2`` in :mod:`effkernels.analysis.cost`. Backends without
such a kernel run the two ops one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
    flat_norm,
    four_sides,
    pair,
)
from effkernels.ops._define import Op, define, nhwc_empty
from effkernels.ops._window import flops as window_flops
from effkernels.ops._window import norm
from effkernels.ops.depthwise_conv_bn_act import DEPTHWISE, DEPTHWISE_POOL
from effkernels.ops.pointwise_conv_bn_act import POINTWISE, matrix
from effkernels.reference.convolution import output_size
from effkernels.reference.elementwise import accumulate_dtype

_SCHEMA = (
    f"(Tensor x, Tensor expand_weight, {norm('expand_')}, "
    f"Tensor depthwise_weight, {norm('depthwise_')}, "
    "SymInt[2] stride, SymInt[4] padding, str activation)"
)


def _parts(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """x, (expand), (depthwise), stride, padding, activation."""
    a = tuple(arguments)
    return a[0], a[1:8], a[8:15], *a[15:]


def _compose(
    pointwise: Callable[..., Any], depthwise: Callable[..., Any], arguments: Sequence[Any]
) -> Any:
    x, expand, deep, stride, padding, activation = _parts(arguments)
    expanded = pointwise(x, *expand, None, None, activation)
    return depthwise(expanded, *deep, stride, padding, (1, 1), activation)


def _reference(*arguments: Any) -> Any:
    return _compose(reference.pointwise_conv_bn_act, reference.depthwise_conv_bn_act, arguments)


def _reference_pool(*arguments: Any) -> Any:
    depthwise = reference.depthwise_conv_bn_act_pool
    return _compose(reference.pointwise_conv_bn_act, depthwise, arguments)


def _of_ops(*arguments: Any) -> Any:
    return _compose(POINTWISE, DEPTHWISE, arguments)


def _of_ops_pool(*arguments: Any) -> Any:
    return _compose(POINTWISE, DEPTHWISE_POOL, arguments)


def _fake(*arguments: Any) -> Tensor:
    x, _, deep, stride, padding, _ = _parts(arguments)
    channels, _, *kernel = deep[0].shape
    size = output_size(x.shape[2:], kernel, stride, padding, (1, 1))
    return nhwc_empty(x, (x.shape[0], channels, *size))


def _fake_pool(*arguments: Any) -> tuple[Tensor, Tensor]:
    y = _fake(*arguments)
    return y, y.new_empty(y.shape[:2], dtype=accumulate_dtype(y.dtype))


def _flops(*arguments: Any) -> int:
    (n, c_in, height, width), expand, deep, stride, padding, activation = _parts(arguments)
    wide = (n, expand[0][0], height, width)
    window = (stride, padding, (1, 1), activation)
    return int(2 * n * height * width * c_in * wide[1]) + window_flops(wide, *deep, *window)


EXPAND_DEPTHWISE = define(
    Op(
        "expand_depthwise_conv_bn_act",
        f"{_SCHEMA} -> Tensor",
        _reference,
        _fake,
        _flops,
        composed=_of_ops,
    )
)
EXPAND_DEPTHWISE_POOL = define(
    Op(
        "expand_depthwise_conv_bn_act_pool",
        f"{_SCHEMA} -> (Tensor, Tensor)",
        _reference_pool,
        _fake_pool,
        _flops,
        composed=_of_ops_pool,
    )
)


def checked_pointwise(op: str, name: str, x: Tensor, conv: Conv, c_in: int) -> tuple[Any, ...]:
    """A 1x1 convolution of ``c_in`` channels as the schemas have it, checked and cast."""
    weight = cast(matrix(op, f"{name}.weight", conv.weight))
    check_beside(op, f"{name}.weight", weight, x, (weight.shape[0], c_in), dtype=True)
    return weight, conv.bias, *flat_norm(op, x, weight.shape[0], conv.bias, conv.bn)


def checked_depthwise(op: str, x: Tensor, conv: Conv, channels: int) -> tuple[Any, ...]:
    """The same of a depthwise convolution."""
    weight = cast(conv.weight)
    if weight.dim() != 4:
        raise ValueError(
            f"{op}: depthwise.weight must have 4 dimensions, got {tuple(weight.shape)}"
        )
    shape = (channels, 1, *weight.shape[2:])
    check_beside(op, "depthwise.weight", weight, x, shape, dtype=True)
    return weight, conv.bias, *flat_norm(op, x, channels, conv.bias, conv.bn)


def checked_window(
    op: str,
    x: Tensor,
    kernel: Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    activation: str,
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """How the depthwise kernel moves over ``x``, checked with the activation."""
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
) -> tuple[Any, ...]:
    check_images(op, x)
    x = channels_last(cast(x))
    first = checked_pointwise(op, "expand", x, expand, x.shape[1])
    deep = checked_depthwise(op, x, depthwise, first[0].shape[0])
    window = checked_window(op, x, deep[0].shape[2:], stride, padding, activation)
    return x, *first, *deep, *window, activation


def expand_depthwise_conv_bn_act(
    x: Tensor,
    expand: Conv,
    depthwise: Conv,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    activation: str = "silu",
) -> Tensor:
    """``activation(bn(depthwise_conv(activation(bn(conv1x1(x))))))``; the expanded map is no result.

    A kernel of its own keeps that map on chip; backends without one run both convolutions in turn. The map is
    rounded to the dtype of ``x`` either way, and zero where the depthwise convolution pads it.

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
        ValueError: shapes, devices or values that do not fit; the message names the argument.
        TypeError: a non-floating tensor, or dtypes that differ outside autocast.
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
