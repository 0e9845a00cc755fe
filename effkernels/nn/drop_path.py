"""Stochastic depth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from effkernels.nn._plain import is_plain


@torch.fx.wrap  # one node in torch.fx's graphs: it reads the dimensions
def _drop(x: Tensor, rate: float) -> Tensor:
    keep = 1.0 - rate
    mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
    if keep > 0.0:  # at rate 1 everything is dropped
        mask.div_(keep)
    return x * mask


class DropPath(nn.Module):
    """In training, zero whole samples of a residual branch with probability ``rate``, and scale up the
    rest.

    Source: Huang et al. 2016 (arXiv 1603.09382); per sample, as torchvision's ``StochasticDepth("row")``.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"drop path rate must lie in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) to the same shape."""
        if not self.training or self.rate == 0.0:
            return x
        return _drop(x, self.rate)

    def extra_repr(self) -> str:
        """For ``repr``."""
        return f"rate={self.rate:.3f}"


def keeps_all(drop: Any) -> bool:
    """Whether it is a :class:`DropPath` that drops nothing now, or nothing at all."""
    if drop is None or is_plain(drop, nn.Identity):
        return True
    return is_plain(drop, DropPath) and (not drop.training or drop.rate == 0.0)
