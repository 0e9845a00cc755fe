"""Comparing state dicts."""

from __future__ import annotations

import torch
from torch import Tensor


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Whether both have the same keys in the same order, and equal tensors."""
    return list(found) == list(expected) and all(
        torch.equal(found[key], expected[key]) for key in expected
    )
