"""The tolerance rule of all tests and benchmarks."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def allowed_error(
    eager: Tensor, exact: Tensor, *, magnitude: float = 0.0, depth: int = 1, rounded: float = 0.0
) -> float:
    """How far a result may be from float64 ``exact``: twice as far as ``eager``, PyTorch's own result in that dtype.

    To this is added what summing ``depth`` terms, whose absolute values sum to at most ``magnitude``, may
    contribute: sqrt(depth) * eps * magnitude, with the eps of the accumulation dtype (float32 for 16-bit types);
    half a unit in the last place of the largest result, for its rounding; and ``rounded``, for ops that round
    intermediate maps, as if to memory. Values that are NaN or infinite in ``exact`` do not count, nor those that are
    in ``eager``, which has some also next to them (oneDNN's bfloat16 convolutions spread NaN to other pixels).
    """
    finite = exact.isfinite()
    if not finite.any():
        return 0.0
    comparable = (eager.double() - exact)[finite & eager.isfinite()].abs()
    eager_error = comparable.max().item() if comparable.numel() else 0.0
    sums = torch.finfo(torch.float64 if eager.dtype == torch.float64 else torch.float32).eps
    rounding = torch.finfo(eager.dtype).eps / 2 * exact[finite].abs().max().item()
    return 2 * eager_error + math.sqrt(depth) * sums * magnitude + rounding + rounded


def assert_within_eager(
    actual: Tensor,
    eager: Tensor,
    exact: Tensor,
    *,
    magnitude: float = 0.0,
    depth: int = 1,
    rounded: float = 0.0,
) -> None:
    """Assert that ``actual`` differs from float64 ``exact`` by no more than :func:`allowed_error`.

    NaN and infinite values must be in the same places in both.
    """
    assert actual.shape == exact.shape, f"shape {tuple(actual.shape)}, want {tuple(exact.shape)}"
    assert actual.dtype == eager.dtype, f"dtype {actual.dtype}, want {eager.dtype}"
    assert exact.dtype == torch.float64, "the oracle must be float64"
    finite = exact.isfinite()
    wild = exact[~finite].to(actual.dtype)
    torch.testing.assert_close(actual[~finite], wild, rtol=0, atol=0, equal_nan=True)
    assert actual[finite].isfinite().all(), "values are not finite that should be"
    if not finite.any():
        return
    error = (actual.double() - exact)[finite].abs().max().item()
    allowed = allowed_error(eager, exact, magnitude=magnitude, depth=depth, rounded=rounded)
    assert error <= allowed, f"error {error:.3e}, allowed {allowed:.3e}"
