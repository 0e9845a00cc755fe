"""A whole inference MBConv block: expand, depthwise, squeeze-excitation, project, residual.

Source: Sandler et al. 2018 (arXiv 1801.04381) with the squeeze-excitation of Tan et al. 2019
(arXiv 1807.11626), as EfficientNet has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from effkernels import reference
from effkernels.ops._arguments import Conv, cast, channels_last, check_images
from effkernels.ops._define import Op, define, nhwc_empty
from effkernels.ops._window import flops as window_flops
from effkernels.ops._window import norm
from effkernels.ops.depthwise_conv_bn_act import DEPTHWISE, DEPTHWISE_POOL
from effkernels.ops.expand_depthwise_conv_bn_act import (
    EXPAND_DEPTHWISE,
    EXPAND_DEPTHWISE_POOL,
    checked_depthwise,
    checked_pointwise,
    checked_window,
)
from effkernels.ops.pointwise_conv_bn_act import POINTWISE
from effkernels.ops.squeeze_excite import GATE, checked_weights, gate_flops
from effkernels.reference.convolution import output_size


class Gate(NamedTuple):
    """The two products of squeeze-excitation; see :func:`effkernels.ops.squeeze_excite_gate`."""

    reduce_weight: Tensor
    reduce_bias: Tensor | None
    expand_weight: Tensor
    expand_bias: Tensor | None


_SCHEMA = (
    f"(Tensor x, Tensor? expand_weight, {norm('expand_')}, "
    f"Tensor depthwise_weight, {norm('depthwise_')}, "
    "Tensor? se_reduce_weight, Tensor? se_reduce_bias, "
    "Tensor? se_expand_weight, Tensor? se_expand_bias, "
    f"Tensor project_weight, {norm('project_')}, "
    "SymInt[2] stride, SymInt[4] padding, bool residual, str activation) -> Tensor"
)


def _parts(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """x, (expand), (depthwise), (squeeze-excitation), (project), stride, padding, residual, activation."""
    a = tuple(arguments)
    return a[0], a[1:8], a[8:15], a[15:19], a[19:26], *a[26:]


class _Pieces(NamedTuple):
    """What a block is composed of: functions of the flat arguments of their schemas."""

    pointwise: Callable[..., Any]
    depthwise: Callable[..., Any]
    depthwise_pool: Callable[..., Any]
    expand_depthwise: Callable[..., Any]
    expand_depthwise_pool: Callable[..., Any]
    gate: Callable[..., Any]


_REFERENCE = _Pieces(
    reference.pointwise_conv_bn_act,
    reference.depthwise_conv_bn_act,
    reference.depthwise_conv_bn_act_pool,
    EXPAND_DEPTHWISE.reference,
    EXPAND_DEPTHWISE_POOL.reference,
    reference.squeeze_excite_gate,
)
_OPS = _Pieces(POINTWISE, DEPTHWISE, DEPTHWISE_POOL, EXPAND_DEPTHWISE, EXPAND_DEPTHWISE_POOL, GATE)


def _compose(pieces: _Pieces, *arguments: Any) -> Any:
    """Two passes, or three where the first is itself composed, and the small gate."""
    x, expand, depthwise, se, project, stride, padding, residual, activation = _parts(arguments)
    if expand[0] is None:
        first, pooling = pieces.depthwise, pieces.depthwise_pool
        operands = (x, *depthwise, stride, padding, (1, 1), activation)
    else:
        first, pooling = pieces.expand_depthwise, pieces.expand_depthwise_pool
        operands = (x, *expand, *depthwise, stride, padding, activation)
    if se[0] is None:
        wide, gate = first(*operands), None
    else:
        wide, pooled = pooling(*operands)
        gate = pieces.gate(pooled, *se, activation)
    return pieces.pointwise(wide, *project, gate, x if residual else None, "identity")


def _reference(*arguments: Any) -> Any:
    return _compose(_REFERENCE, *arguments)


def _of_ops(*arguments: Any) -> Any:
    return _compose(_OPS, *arguments)


def _fake(*arguments: Any) -> Tensor:
    x, _, depthwise, _, project, stride, padding, _, _ = _parts(arguments)
    kernel = depthwise[0].shape[2:]
    size = output_size(x.shape[2:], kernel, stride, padding, (1, 1))
    return nhwc_empty(x, (x.shape[0], project[0].shape[0], *size))


def _flops(*arguments: Any) -> int:
    x, expand, depthwise, se, project, stride, padding, _, activation = _parts(arguments)
    n, _, height, width = x
    total = 0 if expand[0] is None else 2 * n * height * width * expand[0][0] * expand[0][1]
    window = (stride, padding, (1, 1), activation)
    total += window_flops(x, *depthwise, *window)
    if se[0] is not None:
        total += gate_flops(x, se[0])
    height, width = output_size(x[2:], depthwise[0][2:], stride, padding, (1, 1))
    return int(total + 2 * n * height * width * project[0][0] * project[0][1])


_OP = define(Op("mbconv", _SCHEMA, _reference, _fake, _flops, composed=_of_ops))


def mbconv(
    x: Tensor,
    expand: Conv | None,
    depthwise: Conv,
    gate: Gate | None,
    project: Conv,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    residual: bool = False,
    activation: str = "silu",
) -> Tensor:
    """One MBConv block in inference: ``project(gate * depthwise(expand(x))) [+ x]``.

    Args:
        x: (N, C_in, H, W), floating point.
        expand: 1x1 convolution C_in -> E, with BN and activation; None where E is C_in.
        depthwise: k x k depthwise convolution of E channels, (E, 1, k, k), with BN and activation.
        gate: squeeze-excitation of the depthwise result, or None.
        project: 1x1 convolution E -> C_out with BN, without activation.
        stride, padding: of the depthwise convolution, as in
            :func:`effkernels.ops.depthwise_conv_bn_act`.
        residual: add ``x`` to the result, whose shape must then be that of ``x``.
        activation: of expand, depthwise and between the gate's products.

    Returns:
        (N, C_out, H_out, W_out), dtype of ``x``, channels_last.

    Raises:
        ValueError: shapes, devices or values that do not fit; the message names the argument.
        TypeError: a non-floating tensor, or dtypes that differ outside autocast.
    """
    op = "mbconv"
    check_images(op, x)
    x = channels_last(cast(x))
    n, c_in, height, width = x.shape
    flat_expand: tuple[Any, ...] = (None,) * 6 + (0.0,)
    wide = c_in
    if expand is not None:
        flat_expand = checked_pointwise(op, "expand", x, expand, c_in)
        wide = flat_expand[0].shape[0]
    flat_depthwise = checked_depthwise(op, x, depthwise, wide)
    kernel = flat_depthwise[0].shape[2:]
    weights: tuple[Any, ...] = (None,) * 4
    if gate is not None:
        weights = checked_weights(op, x, *gate, wide)
    flat_project = checked_pointwise(op, "project", x, project, wide)
    strides, sides = checked_window(op, x, kernel, stride, padding, activation)
    if residual:
        size = output_size((height, width), kernel, strides, sides, (1, 1))
        shape = (n, flat_project[0].shape[0], *size)
        if shape != tuple(x.shape):
            raise ValueError(
                f"{op}: residual=True needs a result of x's shape {tuple(x.shape)}, got {shape}"
            )
    window = (strides, sides, residual, activation)
    y: Tensor = _OP(x, *flat_expand, *flat_depthwise, *weights, *flat_project, *window)
    return y
