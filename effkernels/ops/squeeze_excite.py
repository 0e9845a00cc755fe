"""Squeeze-excitation (Hu et al. 2018, arXiv 1709.01507): the gate from pooled values, and the whole layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from effkernels import reference
from effkernels.ops._arguments import (
    cast,
    channels_last,
    check_activation,
    check_beside,
    check_images,
)
from effkernels.ops._define import Op, define, nhwc_empty
from effkernels.ops.pointwise_conv_bn_act import matrix

_WEIGHTS = (
    "Tensor reduce_weight, Tensor? reduce_bias, Tensor expand_weight, Tensor? expand_bias, "
    "str activation"
)


def _fake_gate(*arguments: Any) -> Tensor:
    pooled: Tensor = arguments[0]
    return pooled.new_empty(pooled.shape)


def _fake(*arguments: Any) -> Tensor:
    return nhwc_empty(arguments[0], arguments[0].shape)


def gate_flops(*arguments: Any) -> int:
    """Two per multiply-add of both products. Takes shapes."""
    x, reduce_weight = arguments[:2]
    squeezed, channels = reduce_weight
    return 4 * int(x[0]) * int(squeezed) * int(channels)


GATE = define(
    Op(
        "squeeze_excite_gate",
        f"(Tensor pooled, {_WEIGHTS}) -> Tensor",
        reference.squeeze_excite_gate,
        _fake_gate,
        gate_flops,
    )
)
_LAYER = define(
    Op(
        "squeeze_excite",
        f"(Tensor x, {_WEIGHTS}) -> Tensor",
        reference.squeeze_excite,
        _fake,
        gate_flops,
    )
)


def checked_weights(
    op: str,
    x: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor | None,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    channels: int,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Both products' weights as matrices beside ``x``, checked."""
    reduce_weight = matrix(op, "reduce_weight", reduce_weight)
    expand_weight = matrix(op, "expand_weight", expand_weight)
    squeezed = reduce_weight.shape[0]
    check_beside(op, "reduce_weight", reduce_weight, x, (squeezed, channels))
    check_beside(op, "expand_weight", expand_weight, x, (channels, squeezed))
    if reduce_bias is not None:
        check_beside(op, "reduce_bias", reduce_bias, x, (squeezed,))
    if expand_bias is not None:
        check_beside(op, "expand_bias", expand_bias, x, (channels,))
    return reduce_weight, reduce_bias, expand_weight, expand_bias


def squeeze_excite_gate(
    pooled: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor | None,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    *,
    activation: str = "silu",
) -> Tensor:
    """``sigmoid(expand(activation(reduce(pooled))))``: both small products in one kernel.

    Args:
        pooled: (N, C), means over height and width, float32 (or float64).
        reduce_weight: (R, C) or (R, C, 1, 1), any floating dtype.
        reduce_bias: (R,), or None.
        expand_weight: (C, R) or (C, R, 1, 1), any floating dtype.
        expand_bias: (C,), or None.
        activation: between the two products: "silu", "relu", "relu6", "hardswish" or "identity".

    Returns:
        (N, C), dtype of ``pooled``, values in [0, 1].

    Raises:
        ValueError: shapes or devices that do not fit; the message names the argument.
        TypeError: a non-floating tensor.
    """
    op = "squeeze_excite_gate"
    if pooled.dim() != 2:
        raise ValueError(f"{op}: pooled must be (N, C), got shape {tuple(pooled.shape)}")
    check_beside(op, "pooled", pooled, pooled, pooled.shape)
    biased = (reduce_weight, reduce_bias, expand_weight, expand_bias)
    weights = checked_weights(op, pooled, *biased, pooled.shape[1])
    check_activation(op, activation)
    gate: Tensor = GATE(pooled.contiguous(), *weights, activation)
    return gate


def squeeze_excite(
    x: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor | None,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    *,
    activation: str = "silu",
) -> Tensor:
    """The whole layer: ``x * squeeze_excite_gate(mean of x over height and width)``.

    Args:
        x: (N, C, H, W), floating point.
        reduce_weight, reduce_bias, expand_weight, expand_bias, activation: see
            :func:`squeeze_excite_gate`.

    Returns:
        (N, C, H, W), dtype of ``x``, channels_last.

    Raises:
        ValueError: shapes or devices that do not fit; the message names the argument.
        TypeError: a non-floating tensor.
    """
    op = "squeeze_excite"
    check_images(op, x)
    x = channels_last(cast(x))
    biased = (reduce_weight, reduce_bias, expand_weight, expand_bias)
    weights = checked_weights(op, x, *biased, x.shape[1])
    check_activation(op, activation)
    y: Tensor = _LAYER(x, *weights, activation)
    return y
