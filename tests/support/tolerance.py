"""The one tolerance rule of the suite."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def assert_within_eager(
    actual: Tensor, eager: Tensor, exact: Tensor, *, magnitude: float = 0.0, depth: int = 1
) -> None:
    """``actual`` errs from float64 ``exact`` at most twice as much as ``eager``, PyTorch's own, does.

    Plus what the accumulation of ``depth`` terms, whose absolute values sum to at most ``magnitude``, may
    add: sqrt(depth) * eps * magnitude, with the eps of the dtype that sums, float32 for 16-bit types, and
    half a unit in the last place of the largest result for its rounding.
    """
    assert actual.shape == exact.shape, f"shape {tuple(actual.shape)}, want {tuple(exact.shape)}"
    assert actual.dtype == eager.dtype, f"dtype {actual.dtype}, want {eager.dtype}"
    assert exact.dtype == torch.float64, "the oracle must be float64"
    if not exact.numel():
        return
    assert torch.isfinite(actual).all(), "not finite"
    error = (actual.double() - exact).abs().max().item()
    eager_error = (eager.double() - exact).abs().max().item()
    sums = torch.finfo(torch.float64 if actual.dtype == torch.float64 else torch.float32).eps
    rounding = torch.finfo(actual.dtype).eps / 2 * exact.abs().max().item()
    allowed = 2 * eager_error + math.sqrt(depth) * sums * magnitude + rounding
    assert error <= allowed, f"error {error:.3e}, allowed {allowed:.3e}, eager's {eager_error:.3e}"
