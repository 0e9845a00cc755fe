"""The one tolerance rule, of the tests and of the benchmarks."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def allowed_error(
    eager: Tensor, exact: Tensor, *, magnitude: float = 0.0, depth: int = 1, rounded: float = 0.0
) -> float:
    """How far a result may be from float64 ``exact``: twice as far as ``eager``, PyTorch's own in its dtype, is.

    Plus what the accumulation of ``depth`` terms, whose absolute values sum to at most ``magnitude``, may
    add: sqrt(depth) * eps * magnitude, with the eps of the dtype that sums, float32 for 16-bit types, and
    half a unit in the last place of the largest result for its rounding. Where an op rounds on its way, as if to
    memory, what these roundings may add: ``rounded``. Values that are NaN or infinite in ``exact`` do not count, nor
    those in ``eager``: it has some also next to them (oneDNN's bfloat16 convolutions spread NaN to other pixels).
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
    """``actual`` errs from float64 ``exact`` by no more than :func:`allowed_error`.

    What is NaN or infinite must be so in ``exact`` too, and the other way round.
    """
    assert actual.shape == exact.shape, f"shape {tuple(actual.shape)}, want {tuple(exact.shape)}"
    assert actual.dtype == eager.dtype, f"dtype {actual.dtype}, want {eager.dtype}"
    assert exact.dtype == torch.float64, "the oracle must be float64"
    finite = exact.isfinite()
    wild = exact[~finite].to(actual.dtype)
    torch.testing.assert_close(actual[~finite], wild, rtol=0, atol=0, equal_nan=True)
    assert actual[finite].isfinite().all(), "not finite"
    if not finite.any():
        return
    error = (actual.double() - exact)[finite].abs().max().item()
    allowed = allowed_error(eager, exact, magnitude=magnitude, depth=depth, rounded=rounded)
    assert error <= allowed, f"error {error:.3e}, allowed {allowed:.3e}"
