"""A whole inference MBConv block: expand, depthwise, squeeze-excitation, project, residual.

Source: Sandler et al. 2018 (arXiv 1801.04381) with the squeeze-excitation of Tan et al. 2019
(arXiv 1807.11626), as in EfficientNet.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from torch import Tensor

from effkernels import reference
from effkernels.ops._arguments import Conv, Gate, channels_last, check_images
from effkernels.ops._arguments import cast as autocast
from effkernels.ops._define import Op, define, nhwc_empty
from effkernels.ops._repeated import NO_NORM, Repeats
from effkernels.ops._schema import ConvNorm, Pair, Sides, named, schema
from effkernels.ops._window import flops as window_flops
from effkernels.ops.depthwise_conv_bn_act import DEPTHWISE, DEPTHWISE_POOL
from effkernels.ops.expand_depthwise_conv_bn_act import (
    EXPAND_DEPTHWISE,
    EXPAND_DEPTHWISE_POOL,
    ExpandDepthwiseArguments,
    checked_depthwise,
    checked_pointwise,
    checked_window,
    on_window,
)
from effkernels.ops.pointwise_conv_bn_act import POINTWISE, PointwiseArguments
from effkernels.ops.squeeze_excite_gate import GATE, GateArguments, checked_gate, gate_flops
from effkernels.reference.convolution import output_size


class MbconvArguments(NamedTuple):
    """Three groups of :class:`ConvNorm` and one of :class:`Gate`; 1x1 weights are matrices.

    Without ``expand_weight`` there is no expansion, and without ``se_reduce_weight`` no gate; the other fields of
    these groups are then ignored.
    """

    x: Tensor
    expand_weight: Tensor | None
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
    se_reduce_weight: Tensor | None
    se_reduce_bias: Tensor | None
    se_expand_weight: Tensor | None
    se_expand_bias: Tensor | None
    project_weight: Tensor
    project_bias: Tensor | None
    project_bn_weight: Tensor | None
    project_bn_bias: Tensor | None
    project_running_mean: Tensor | None
    project_running_var: Tensor | None
    project_eps: float
    stride: Pair
    padding: Sides
    residual: bool
    activation: str

    @property
    def expand(self) -> ConvNorm | None:
        """The 1x1 convolution that expands the channels, or None."""
        if self.expand_weight is None:
            return None
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

    @property
    def gate(self) -> Gate | None:
        """Squeeze-excitation, or None."""
        if self.se_reduce_weight is None:
            return None
        assert self.se_expand_weight is not None, (
            "mbconv: se_reduce_weight without se_expand_weight"
        )
        reduce = (self.se_reduce_weight, self.se_reduce_bias)
        return Gate(*reduce, self.se_expand_weight, self.se_expand_bias)

    @property
    def project(self) -> ConvNorm:
        """The 1x1 convolution that projects."""
        return ConvNorm(
            self.project_weight,
            self.project_bias,
            self.project_bn_weight,
            self.project_bn_bias,
            self.project_running_mean,
            self.project_running_var,
            self.project_eps,
        )


# The fields of a group that is absent.
_NO_CONV = cast(ConvNorm, (None, None, None, None, None, None, 0.0))
_NO_GATE = cast(Gate, (None, None, None, None))


class _Pieces(NamedTuple):
    """The functions that a block is composed of; each takes the flat arguments of its schema."""

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


def _compose(pieces: _Pieces, a: MbconvArguments) -> Any:
    """Two passes over memory (three if the first is itself composed of two), and the small gate."""
    expand, depthwise, gate = a.expand, a.depthwise, a.gate
    operands: tuple[Any, ...]
    if expand is None:
        first, pooling = pieces.depthwise, pieces.depthwise_pool
        operands = on_window(a.x, depthwise, a.stride, a.padding, a.activation)
    else:
        first, pooling = pieces.expand_depthwise, pieces.expand_depthwise_pool
        window = (a.stride, a.padding, a.activation)
        operands = ExpandDepthwiseArguments(a.x, *expand, *depthwise, *window)
    if gate is None:
        wide, factors = first(*operands), None
    else:
        wide, pooled = pooling(*operands)
        factors = pieces.gate(*GateArguments(pooled, *gate, a.activation))
    residual = a.x if a.residual else None
    project = PointwiseArguments(
        wide, *a.project, gate=factors, residual=residual, activation="identity"
    )
    return pieces.pointwise(*project)


def _reference(a: MbconvArguments) -> Any:
    return _compose(_REFERENCE, a)


def _of_ops(a: MbconvArguments) -> Any:
    return _compose(_OPS, a)


def _fake(a: MbconvArguments) -> Tensor:
    kernel = a.depthwise_weight.shape[2:]
    size = output_size(a.x.shape[2:], kernel, a.stride, a.padding, (1, 1))
    return nhwc_empty(a.x, (a.x.shape[0], a.project_weight.shape[0], *size))


def _flops(a: Any) -> int:
    n, _, height, width = a.x
    total = 0
    if a.expand_weight is not None:
        total += 2 * n * height * width * a.expand_weight[0] * a.expand_weight[1]
    window = on_window(a.x, a.depthwise, a.stride, a.padding, a.activation)
    total += window_flops(window)
    if a.se_reduce_weight is not None:
        total += gate_flops(n, a.se_reduce_weight)
    kernel, (c_out, c_wide) = a.depthwise_weight[2:], a.project_weight
    height, width = output_size(a.x[2:], kernel, a.stride, a.padding, (1, 1))
    return int(total + 2 * n * height * width * c_out * c_wide)


_OP = define(
    Op(
        "mbconv",
        schema(MbconvArguments, "Tensor"),
        named(MbconvArguments, _reference),
        named(MbconvArguments, _fake),
        named(MbconvArguments, _flops),
        composed=named(MbconvArguments, _of_ops),
    )
)
_repeats = Repeats(_OP)


def _flat(conv: Conv | None) -> tuple[Any, ...]:
    return _NO_CONV if conv is None else (conv.weight, conv.bias, *(conv.bn or NO_NORM))


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
        expand: 1x1 convolution, (E, C_in) or (E, C_in, 1, 1), with BN and activation; None if E is C_in.
        depthwise: k x k depthwise convolution of E channels, (E, 1, k, k), with BN and activation.
        gate: squeeze-excitation of the depthwise result, weights (R, E) and (E, R); or None.
        project: 1x1 convolution, (C_out, E) or (C_out, E, 1, 1), with BN, without activation.
        stride, padding: of the depthwise convolution, as in
            :func:`effkernels.ops.depthwise_conv_bn_act`.
        residual: add ``x`` to the result, which must then have the shape of ``x``.
        activation: after expand, after depthwise and between the gate's products.

    Returns:
        (N, C_out, H_out, W_out), dtype of ``x``, channels_last.

    Raises:
        ValueError: shapes, devices or values do not fit; the message names the argument.
        TypeError: a tensor is not floating point, or dtypes differ outside of autocast.
    """
    op = "mbconv"
    kinds = _repeats.kinds(
        x, expand, depthwise, gate, project, stride, padding, residual, activation
    )
    if kinds is not None:
        convs = (_flat(expand), _flat(depthwise), gate or _NO_GATE, _flat(project))
        y: Tensor | None = _repeats.call(kinds, x, *itertools.chain.from_iterable(convs))
        if y is not None:
            return y
    check_images(op, x)
    x = channels_last(autocast(x))
    n, c_in, height, width = x.shape
    first, wide = _NO_CONV, c_in
    if expand is not None:
        first = checked_pointwise(op, "expand", x, expand, c_in)
        wide = first.weight.shape[0]
    second = checked_depthwise(op, x, depthwise, wide)
    kernel = second.weight.shape[2:]
    weights = _NO_GATE if gate is None else checked_gate(op, x, gate, wide)
    last = checked_pointwise(op, "project", x, project, wide)
    strides, sides = checked_window(op, x, kernel, stride, padding, activation)
    if residual:
        size = output_size((height, width), kernel, strides, sides, (1, 1))
        shape = (n, last.weight.shape[0], *size)
        if shape != tuple(x.shape):
            raise ValueError(
                f"{op}: residual=True needs a result with x's shape {tuple(x.shape)}, got {shape}"
            )
    groups = (*first, *second, *weights, *last)
    window = (strides, sides, residual, activation)
    arguments = MbconvArguments(x, *groups, *window)
    result: Tensor = _OP(*arguments)
    _repeats.remember(kinds, arguments, others=4)
    return result
