"""1x1 convolution with everything around it: gate on the way in; BatchNorm, activation, residual out."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from effkernels import reference
from effkernels.ops._arguments import (
    BatchNorm,
    cast,
    channels_last,
    check_activation,
    check_beside,
    check_images,
    flat_norm,
)
from effkernels.ops._define import Op, define, nhwc_empty
from effkernels.ops._window import NORM


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


def matrix(op: str, name: str, weight: Tensor) -> Tensor:
    """A 1x1 kernel (C_out, C_in, 1, 1), or a matrix (C_out, C_in), as a matrix; no copy."""
    if weight.dim() == 2:
        return weight
    if weight.dim() != 4 or weight.shape[2:] != (1, 1):
        raise ValueError(
            f"{op}: {name} must be (C_out, C_in) or (C_out, C_in, 1, 1), got {tuple(weight.shape)}"
        )
    return weight[:, :, 0, 0]


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
    check_images(op, x)
    x, weight = channels_last(cast(x)), matrix(op, "weight", cast(weight))
    n, c_in, height, width = x.shape
    check_beside(op, "weight", weight, x, (weight.shape[0], c_in), dtype=True)
    norm = flat_norm(op, x, weight.shape[0], bias, bn)
    if gate is not None:
        check_beside(op, "gate", gate, x, (n, c_in))
    if residual is not None:
        residual = cast(residual)
        check_beside(op, "residual", residual, x, (n, weight.shape[0], height, width), dtype=True)
        residual = channels_last(residual)
    check_activation(op, activation)
    y: Tensor = POINTWISE(x, weight, bias, *norm, gate, residual, activation)
    return y
