"""Squeeze-excitation (Hu et al. 2018, arXiv 1709.01507) as a whole layer: squeeze, gate, scale."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from effkernels import reference
from effkernels.ops._arguments import (
    Gate,
    cast,
    channels_last,
    check_activation,
    check_images,
)
from effkernels.ops._define import Op, define, nhwc_empty
from effkernels.ops._repeated import Repeats
from effkernels.ops._schema import named, schema
from effkernels.ops.squeeze_excite_gate import GateArguments, checked_gate, gate_flops


class SqueezeExciteArguments(NamedTuple):
    """Weights are matrices."""

    x: Tensor
    reduce_weight: Tensor
    reduce_bias: Tensor | None
    expand_weight: Tensor
    expand_bias: Tensor | None
    activation: str

    def gate(self, pooled: Tensor) -> GateArguments:
        """The arguments of the layer's gate, from the means of ``x``."""
        reduce, expand = (
            (self.reduce_weight, self.reduce_bias),
            (self.expand_weight, self.expand_bias),
        )
        return GateArguments(pooled, *reduce, *expand, self.activation)


def _fake(a: SqueezeExciteArguments) -> Tensor:
    return nhwc_empty(a.x, a.x.shape)


def _flops(a: Any) -> int:
    return gate_flops(a.x[0], a.reduce_weight)


_OP = define(
    Op(
        "squeeze_excite",
        schema(SqueezeExciteArguments, "Tensor"),
        reference.squeeze_excite,
        named(SqueezeExciteArguments, _fake),
        named(SqueezeExciteArguments, _flops),
    )
)
_repeats = Repeats(_OP)


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
        ValueError: shapes or devices do not fit; the message names the argument.
        TypeError: a tensor is not floating point.
    """
    op = "squeeze_excite"
    given = (x, reduce_weight, reduce_bias, expand_weight, expand_bias)
    kinds = _repeats.kinds(*given, activation)
    if kinds is not None:
        y: Tensor | None = _repeats.call(kinds, *given)
        if y is not None:
            return y
    check_images(op, x)
    x = channels_last(cast(x))
    weights = Gate(reduce_weight, reduce_bias, expand_weight, expand_bias)
    weights = checked_gate(op, x, weights, x.shape[1])
    check_activation(op, activation)
    arguments = SqueezeExciteArguments(x, *weights, activation)
    result: Tensor = _OP(*arguments)
    _repeats.remember(kinds, arguments, others=1)
    return result
