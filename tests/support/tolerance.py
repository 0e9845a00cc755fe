"""The one tolerance rule of the suite."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def assert_within_eager(
    actual: Tensor,
    eager: Tensor,
    exact: Tensor,
    *,
    magnitude: float = 0.0,
    depth: int = 1,
    rounded: float = 0.0,
) -> None:
    """``actual`` errs from float64 ``exact`` at most twice as much as ``eager``, PyTorch's own, does.

    Plus what the accumulation of ``depth`` terms, whose absolute values sum to at most ``magnitude``, may
    add: sqrt(depth) * eps * magnitude, with the eps of the dtype that sums, float32 for 16-bit types, and
    half a unit in the last place of the largest result for its rounding. Where an op rounds on its way, as if to
    memory, what these roundings may add: ``rounded``.

    What is NaN or infinite must be so in ``exact`` too, and the other way round. (In ``eager`` it is in some
    cases also next to it: oneDNN's bfloat16 convolutions spread NaN to other pixels.)
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
    comparable = (eager.double() - exact)[finite & eager.isfinite()].abs()
    eager_error = comparable.max().item() if comparable.numel() else 0.0
    exact = exact[finite]
    sums = torch.finfo(torch.float64 if actual.dtype == torch.float64 else torch.float32).eps
    rounding = torch.finfo(actual.dtype).eps / 2 * exact.abs().max().item()
    allowed = 2 * eager_error + math.sqrt(depth) * sums * magnitude + rounding + rounded
    assert error <= allowed, f"error {error:.3e}, allowed {allowed:.3e}, eager's {eager_error:.3e}"
