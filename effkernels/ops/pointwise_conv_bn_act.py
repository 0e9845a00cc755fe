"""1x1 convolution with everything around it: gate on the way in; BatchNorm, activation, residual or mean out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from effkernels import reference
from effkernels.ops._arguments import (
    BatchNorm,
    Flat,
    cast,
    channels_last,
    check_activation,
    check_beside,
    check_images,
    flat_norm,
)
from effkernels.ops._define import Op, define, nhwc_empty
from effkernels.ops._window import NORM
from effkernels.reference.elementwise import accumulate_dtype


def _fake(*arguments: Any) -> Tensor:
    x, weight = arguments[:2]
    return nhwc_empty(x, (x.shape[0], weight.shape[0], *x.shape[2:]))


def _flops(*arguments: Any) -> int:
    (n, c_in, height, width), (c_out, _) = arguments[:2]
    return int(2 * n * height * width * c_in * c_out)


POINTWISE = define(
    Op(
        "pointwise_conv_bn_act",
        f"(Tensor x, Tensor weight, {NORM}, Tensor? gate, Tensor? residual, str activation) -> Tensor",
        reference.pointwise_conv_bn_act,
        _fake,
        _flops,
    )
)


def _with_mean(run: Callable[..., Tensor], arguments: Sequence[Any]) -> tuple[Tensor, Tensor]:
    *operands, activation = arguments
    y = run(*operands, None, None, activation)
    return y, y.mean((2, 3), dtype=accumulate_dtype(y.dtype))


def _reference_pool(*arguments: Any) -> Tensor:
    return _with_mean(reference.pointwise_conv_bn_act, arguments)[1]


def _fake_pool(*arguments: Any) -> Tensor:
    x: Tensor = arguments[0]
    weight: Tensor = arguments[1]
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=accumulate_dtype(x.dtype))


POINTWISE_POOL = define(
    Op(
        "pointwise_conv_bn_act_pool",
        f"(Tensor x, Tensor weight, {NORM}, str activation) -> Tensor",
        _reference_pool,
        _fake_pool,
        _flops,
    )
)


def _reference_squeeze(*arguments: Any) -> tuple[Tensor, Tensor]:
    return _with_mean(reference.pointwise_conv_bn_act, arguments)


def _of_ops_squeeze(*arguments: Any) -> tuple[Tensor, Tensor]:
    return _with_mean(POINTWISE, arguments)


def _fake_squeeze(*arguments: Any) -> tuple[Tensor, Tensor]:
    return _fake(*arguments), _fake_pool(*arguments)


POINTWISE_SQUEEZE = define(
    Op(
        "pointwise_conv_bn_act_squeeze",
        f"(Tensor x, Tensor weight, {NORM}, str activation) -> (Tensor, Tensor)",
        _reference_squeeze,
        _fake_squeeze,
        _flops,
        composed=_of_ops_squeeze,
    )
)


def matrix(op: str, name: str, weight: Tensor) -> Tensor:
    """A 1x1 kernel (C_out, C_in, 1, 1), or a matrix (C_out, C_in), as a matrix; no copy."""
    if weight.dim() == 2:
        return weight
    if weight.dim() != 4 or weight.shape[2:] != (1, 1):
        raise ValueError(
            f"{op}: {name} must be (C_out, C_in) or (C_out, C_in, 1, 1), got {tuple(weight.shape)}"
        )
    return weight.flatten(1)


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
        ValueError: shapes, devices or values that do not fit; the message names the argument.
        TypeError: a non-floating tensor, or dtypes that differ outside autocast.
    """
    op = "pointwise_conv_bn_act"
    x, weight, norm = _checked(op, x, weight, bias, bn, activation)
    n, c_in, height, width = x.shape
    if gate is not None:
        check_beside(op, "gate", gate, x, (n, c_in))
    if residual is not None:
        residual = cast(residual)
        check_beside(op, "residual", residual, x, (n, weight.shape[0], height, width), dtype=True)
        residual = channels_last(residual)
    y: Tensor = POINTWISE(x, weight, bias, *norm, gate, residual, activation)
    return y


def pointwise_conv_bn_act_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    bn: BatchNorm | None = None,
    *,
    activation: str = "silu",
) -> Tensor:
    """The mean of ``activation(bn(conv1x1(x) + bias))`` over height and width; the map itself is not kept.

    The head of a classifier.

    Returns:
        (N, C_out), float32 (float64 for float64).

    Arguments and errors are those of :func:`pointwise_conv_bn_act`.
    """
    x, weight, norm = _checked("pointwise_conv_bn_act_pool", x, weight, bias, bn, activation)
    pooled: Tensor = POINTWISE_POOL(x, weight, bias, *norm, activation)
    return pooled


def pointwise_conv_bn_act_squeeze(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    bn: BatchNorm | None = None,
    *,
    activation: str = "silu",
) -> tuple[Tensor, Tensor]:
    """``activation(bn(conv1x1(x) + bias))`` and, from the same pass, its mean over height and width.

    For networks that squeeze after a 1x1 convolution, as SE-ResNets do. In Triton it is one kernel; backends
    without one read the result again.

    Returns:
        The result, (N, C_out, H, W), as of :func:`pointwise_conv_bn_act`, and its mean: (N, C_out), float32
        (float64 for float64): the squeeze of squeeze-excitation (Hu et al. 2018, arXiv 1709.01507).

    Arguments and errors are those of :func:`pointwise_conv_bn_act`.
    """
    x, weight, norm = _checked("pointwise_conv_bn_act_squeeze", x, weight, bias, bn, activation)
    y, pooled = POINTWISE_SQUEEZE(x, weight, bias, *norm, activation)
    return y, pooled


def _checked(
    op: str, x: Tensor, weight: Tensor, bias: Tensor | None, bn: BatchNorm | None, activation: str
) -> tuple[Tensor, Tensor, Flat]:
    check_images(op, x)
    x, weight = channels_last(cast(x)), matrix(op, "weight", cast(weight))
    check_beside(op, "weight", weight, x, (weight.shape[0], x.shape[1]), dtype=True)
    norm = flat_norm(op, x, weight.shape[0], bias, bn)
    check_activation(op, activation)
    return x, weight, norm
