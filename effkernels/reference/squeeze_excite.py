"""Squeeze-excitation in plain PyTorch. The arguments are those of the op schema."""

from __future__ import annotations

from torch import Tensor

from effkernels.reference.elementwise import accumulate_dtype, channels_last
from effkernels.reference.squeeze_excite_gate import squeeze_excite_gate


def squeeze_excite(
    x: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor | None,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    activation: str,
) -> Tensor:
    """``x`` times its gate."""
    pooled = x.mean((2, 3), dtype=accumulate_dtype(x.dtype))
    gate = squeeze_excite_gate(
        pooled, reduce_weight, reduce_bias, expand_weight, expand_bias, activation
    )
    y = x * gate.to(x.dtype)[:, :, None, None]
    return channels_last(y)
