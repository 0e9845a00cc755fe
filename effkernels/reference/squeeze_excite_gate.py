"""The gate of squeeze-excitation in plain PyTorch. The arguments are those of the op schema."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from effkernels.reference.elementwise import ACTIVATIONS


def squeeze_excite_gate(
    pooled: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor | None,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    activation: str,
) -> Tensor:
    """Reduce, activation, expand, sigmoid, all in the dtype of ``pooled``."""

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    hidden = ACTIVATIONS[activation](linear(pooled, reduce_weight, reduce_bias))
    return torch.sigmoid(linear(hidden, expand_weight, expand_bias))
