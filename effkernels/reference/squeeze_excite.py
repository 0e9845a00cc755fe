"""Squeeze-excitation in plain PyTorch. The arguments are those of the op schemas."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from effkernels.reference.elementwise import ACTIVATIONS, accumulate_dtype, channels_last


def squeeze_excite_gate(
    pooled: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor | None,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    activation: str,
) -> Tensor:
    """Reduce, activation, expand, sigmoid; in the dtype of ``pooled``."""

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    hidden = ACTIVATIONS[activation](linear(pooled, reduce_weight, reduce_bias))
    return torch.sigmoid(linear(hidden, expand_weight, expand_bias))


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
