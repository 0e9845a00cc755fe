"""1x1 convolution with a gate on its input, and BatchNorm, activation and a residual or mean on its output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from effkernels import reference
from effkernels.ops._arguments import (
    BatchNorm,
    cast,
    channels_last,
    check_activation,
    check_beside,
    check_images,
    checked_norm,
    matrix,
)
from effkernels.ops._define import Op, define, nhwc_empty
from effkernels.ops._repeated import NO_NORM, Repeats
from effkernels.ops._schema import Norm, named, schema
from effkernels.reference.elementwise import accumulate_dtype


class PointwiseArguments(NamedTuple):
    """The arguments of the convolution alone; ``weight`` is a matrix."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    bn_weight: Tensor | None
    bn_bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    eps: float
    gate: Tensor | None
    residual: Tensor | None
    activation: str

    @property
    def norm(self) -> Norm:
        """The bias and BatchNorm of the convolution."""
        statistics = (self.running_mean, self.running_var, self.eps)
        return Norm(self.bias, self.bn_weight, self.bn_bias, *statistics)


class PointwisePoolArguments(NamedTuple):
    """The arguments of the convolution with a mean of its result."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    bn_weight: Tensor | None
    bn_bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    eps: float
    activation: str

    @property
    def convolution(self) -> PointwiseArguments:
        """The same convolution without the mean."""
        statistics = (self.running_mean, self.running_var, self.eps)
        norm = Norm(self.bias, self.bn_weight, self.bn_bias, *statistics)
        return PointwiseArguments(
            self.x, self.weight, *norm, gate=None, residual=None, activation=self.activation
        )


def _fake(a: PointwiseArguments | PointwisePoolArguments) -> Tensor:
    return nhwc_empty(a.x, (a.x.shape[0], a.weight.shape[0], *a.x.shape[2:]))


def _flops(a: Any) -> int:
    (n, c_in, height, width), (c_out, _) = a.x, a.weight
    return int(2 * n * height * width * c_in * c_out)


POINTWISE = define(
    Op(
        "pointwise_conv_bn_act",
        schema(PointwiseArguments, "Tensor"),
        reference.pointwise_conv_bn_act,
        named(PointwiseArguments, _fake),
        named(PointwiseArguments, _flops),
    )
)
_repeats = Repeats(POINTWISE)


def _with_mean(run: Callable[..., Tensor], a: PointwisePoolArguments) -> tuple[Tensor, Tensor]:
    y = run(*a.convolution)
    return y, y.mean((2, 3), dtype=accumulate_dtype(y.dtype))


def _reference_pool(a: PointwisePoolArguments) -> Tensor:
    return _with_mean(reference.pointwise_conv_bn_act, a)[1]


def _fake_pool(a: PointwisePoolArguments) -> Tensor:
    return a.x.new_empty((a.x.shape[0], a.weight.shape[0]), dtype=accumulate_dtype(a.x.dtype))


POINTWISE_POOL = define(
    Op(
        "pointwise_conv_bn_act_pool",
        schema(PointwisePoolArguments, "Tensor"),
        named(PointwisePoolArguments, _reference_pool),
        named(PointwisePoolArguments, _fake_pool),
        named(PointwisePoolArguments, _flops),
    )
)
_repeats_pool = Repeats(POINTWISE_POOL)


def _reference_squeeze(a: PointwisePoolArguments) -> tuple[Tensor, Tensor]:
    return _with_mean(reference.pointwise_conv_bn_act, a)


def _of_ops_squeeze(a: PointwisePoolArguments) -> tuple[Tensor, Tensor]:
    return _with_mean(POINTWISE, a)


def _fake_squeeze(a: PointwisePoolArguments) -> tuple[Tensor, Tensor]:
    return _fake(a), _fake_pool(a)


POINTWISE_SQUEEZE = define(
    Op(
        "pointwise_conv_bn_act_squeeze",
        schema(PointwisePoolArguments, "(Tensor, Tensor)"),
        named(PointwisePoolArguments, _reference_squeeze),
        named(PointwisePoolArguments, _fake_squeeze),
        named(PointwisePoolArguments, _flops),
        composed=named(PointwisePoolArguments, _of_ops_squeeze),
    )
)


def pointwise_conv_bn_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    bn: BatchNorm | None = None,
    *,
    gate: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "silu",
) -> Tensor:
    """``activation(bn(conv1x1(x * gate) + bias)) + residual`` in one pass over memory.

    Args:
        x: (N, C_in, H, W), floating point.
        weight: (C_out, C_in) or (C_out, C_in, 1, 1), dtype of ``x``.
        bias: (C_out,), or None.
        bn: inference BatchNorm of C_out channels, or None. Pass a module's with ``BatchNorm.of(module)``.
        gate: (N, C_in), the result of :func:`squeeze_excite_gate`, or None.
        residual: (N, C_out, H, W), dtype of ``x``, added last, or None.
        activation: "silu", "relu", "relu6", "hardswish" or "identity".

    Returns:
        (N, C_out, H, W), dtype of ``x``, channels_last.

    Raises:
        ValueError: shapes, devices or values do not fit; the message names the argument.
        TypeError: a tensor is not floating point, or dtypes differ outside of autocast.
    """
    op = "pointwise_conv_bn_act"
    kinds = _repeats.kinds(x, weight, bias, bn, gate, residual, activation)
    if kinds is not None:
        y: Tensor | None = _repeats.call(kinds, x, weight, bias, *(bn or NO_NORM), gate, residual)
        if y is not None:
            return y
    x, weight, norm = _checked(op, x, weight, bias, bn, activation)
    n, c_in, height, width = x.shape
    if gate is not None:
        check_beside(op, "gate", gate, x, (n, c_in))
    if residual is not None:
        residual = cast(residual)
        check_beside(op, "residual", residual, x, (n, weight.shape[0], height, width), dtype=True)
        residual = channels_last(residual)
    arguments = PointwiseArguments(x, weight, *norm, gate, residual, activation)
    result: Tensor = POINTWISE(*arguments)
    _repeats.remember(kinds, arguments, others=1)
    return result


def pointwise_conv_bn_act_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    bn: BatchNorm | None = None,
    *,
    activation: str = "silu",
) -> Tensor:
    """The mean of ``activation(bn(conv1x1(x) + bias))`` over height and width; the map itself is not stored.

    This is the head of a classifier.

    Returns:
        (N, C_out), float32 (float64 for float64).

    Arguments and errors are those of :func:`pointwise_conv_bn_act`.
    """
    kinds = _repeats_pool.kinds(x, weight, bias, bn, activation)
    if kinds is not None:
        pooled: Tensor | None = _repeats_pool.call(kinds, x, weight, bias, *(bn or NO_NORM))
        if pooled is not None:
            return pooled
    x, weight, norm = _checked("pointwise_conv_bn_act_pool", x, weight, bias, bn, activation)
    arguments = PointwisePoolArguments(x, weight, *norm, activation)
    result: Tensor = POINTWISE_POOL(*arguments)
    _repeats_pool.remember(kinds, arguments, others=1)
    return result


def pointwise_conv_bn_act_squeeze(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    bn: BatchNorm | None = None,
    *,
    activation: str = "silu",
) -> tuple[Tensor, Tensor]:
    """``activation(bn(conv1x1(x) + bias))`` and, from the same pass, its mean over height and width.

    For networks that squeeze after a 1x1 convolution, such as SE-ResNets. On GPUs it is one kernel; the CPU backend
    reads the result again.

    Returns:
        The result, (N, C_out, H, W), as of :func:`pointwise_conv_bn_act`, and its mean: (N, C_out), float32
        (float64 for float64): the squeeze of squeeze-excitation (Hu et al. 2018, arXiv 1709.01507).

    Arguments and errors are those of :func:`pointwise_conv_bn_act`.
    """
    x, weight, norm = _checked("pointwise_conv_bn_act_squeeze", x, weight, bias, bn, activation)
    y, pooled = POINTWISE_SQUEEZE(*PointwisePoolArguments(x, weight, *norm, activation))
    return y, pooled


def _checked(
    op: str, x: Tensor, weight: Tensor, bias: Tensor | None, bn: BatchNorm | None, activation: str
) -> tuple[Tensor, Tensor, Norm]:
    check_images(op, x)
    x, weight = channels_last(cast(x)), matrix(op, "weight", cast(weight))
    check_beside(op, "weight", weight, x, (weight.shape[0], x.shape[1]), dtype=True)
    norm = checked_norm(op, x, weight.shape[0], bias, bn)
    check_activation(op, activation)
    return x, weight, norm
