"""The gate of squeeze-excitation (Hu et al. 2018, arXiv 1709.01507), from pooled values: two small products."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from effkernels import reference
from effkernels.ops._arguments import Gate, check_activation, check_beside, matrix
from effkernels.ops._define import Op, define
from effkernels.ops._repeated import Repeats
from effkernels.ops._schema import named, schema


class GateArguments(NamedTuple):
    """Weights are matrices."""

    pooled: Tensor
    reduce_weight: Tensor
    reduce_bias: Tensor | None
    expand_weight: Tensor
    expand_bias: Tensor | None
    activation: str


def _fake(a: GateArguments) -> Tensor:
    return a.pooled.new_empty(a.pooled.shape)


def gate_flops(images: Any, reduce_weight: Any) -> int:
    """Two per multiply-add of both products; ``reduce_weight`` is a shape."""
    squeezed, channels = reduce_weight
    return 4 * int(images) * int(squeezed) * int(channels)


def _flops(a: Any) -> int:
    return gate_flops(a.pooled[0], a.reduce_weight)


GATE = define(
    Op(
        "squeeze_excite_gate",
        schema(GateArguments, "Tensor"),
        reference.squeeze_excite_gate,
        named(GateArguments, _fake),
        named(GateArguments, _flops),
    )
)
_repeats = Repeats(GATE)


def checked_gate(op: str, x: Tensor, gate: Gate, channels: int) -> Gate:
    """The gate, checked, with the weights of both products as matrices."""
    reduce_weight = matrix(op, "reduce_weight", gate.reduce_weight)
    expand_weight = matrix(op, "expand_weight", gate.expand_weight)
    squeezed = reduce_weight.shape[0]
    check_beside(op, "reduce_weight", reduce_weight, x, (squeezed, channels))
    check_beside(op, "expand_weight", expand_weight, x, (channels, squeezed))
    if gate.reduce_bias is not None:
        check_beside(op, "reduce_bias", gate.reduce_bias, x, (squeezed,))
    if gate.expand_bias is not None:
        check_beside(op, "expand_bias", gate.expand_bias, x, (channels,))
    return Gate(reduce_weight, gate.reduce_bias, expand_weight, gate.expand_bias)


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
        ValueError: shapes or devices do not fit; the message names the argument.
        TypeError: a tensor is not floating point.
    """
    op = "squeeze_excite_gate"
    given = (pooled, reduce_weight, reduce_bias, expand_weight, expand_bias)
    kinds = _repeats.kinds(*given, activation)
    if kinds is not None:
        y: Tensor | None = _repeats.call(kinds, *given)
        if y is not None:
            return y
    if pooled.dim() != 2:
        raise ValueError(f"{op}: pooled must be (N, C), got shape {tuple(pooled.shape)}")
    check_beside(op, "pooled", pooled, pooled, pooled.shape)
    weights = Gate(reduce_weight, reduce_bias, expand_weight, expand_bias)
    weights = checked_gate(op, pooled, weights, pooled.shape[1])
    check_activation(op, activation)
    arguments = GateArguments(pooled.contiguous(), *weights, activation)
    result: Tensor = GATE(*arguments)
    _repeats.remember(kinds, arguments, others=1)
    return result
