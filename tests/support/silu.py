"""What SiLU must be, of every value of the 16-bit types."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALVES = [torch.float16, torch.bfloat16]
# What may stand beside an element.
NEIGHBOURS = [torch.nan, torch.inf, -torch.inf, 3e38, -3e38, 0.0, -43.0, -42.0, 1.0]
# Of float32 values in neighbouring pairs.
Silu = Callable[[Tensor], Tensor]


def every(dtype: torch.dtype) -> Tensor:
    """All values of a 16-bit type, as float32."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).float()


def exact_silu(x: Tensor) -> Tensor:
    x = x.double()
    return x * torch.sigmoid(x)


def assert_is_silu(y: Tensor, x: Tensor) -> None:
    """As PyTorch defines it, and close to float64.

    The exponent x log2(e) is rounded, and so is the constant in it: what e^-x may err by grows with x. The power, two
    sums and three products follow. What is taken off the sigmoids is 1e-17 of the result, far below.
    """
    exact = exact_silu(x)
    assert torch.equal(y.isnan(), exact.isnan())
    assert torch.equal(y.isnan(), x.isnan() | (x == -torch.inf))
    infinite, finite = exact.isinf(), exact.isfinite()
    assert torch.equal(y[infinite].double(), exact[infinite])
    units = torch.finfo(torch.float32).eps / 2
    allowed = exact[finite].abs() * units * (1.5 * x[finite].abs().clamp(max=90) + 8) + 1e-17
    # float32 has no smaller numbers than these.
    allowed += torch.finfo(torch.float32).tiny
    assert ((y[finite].double() - exact[finite]).abs() <= allowed).all()


def assert_rounds_to_silu(silu: Silu, dtype: torch.dtype) -> None:
    """To the exact value, rounded, from -20 to 20, but where that lies in the middle between two values."""
    x = every(dtype)
    x = x[x.abs() <= 20]
    y, exact = silu(x).to(dtype), exact_silu(x)
    differ = y != exact.to(dtype)
    assert differ.sum() <= x.numel() // 1000
    middle = (y.double() + exact.to(dtype).double()) / 2
    near = (exact - middle).abs() <= exact.abs() * 2**-18 + 1e-17
    assert (near | ~differ).all()


def assert_pairs_are_apart(silu: Silu, dtype: torch.dtype, neighbour: float) -> None:
    """An element does not see the other one, on either side."""
    x = every(dtype)
    for place in range(2):
        pairs = torch.full((x.numel(), 2), neighbour)
        pairs[:, place] = x
        y = silu(pairs.flatten()).view(-1, 2)
        assert_is_silu(y[:, place], x)
        assert_is_silu(y[:, 1 - place], pairs[:, 1 - place])


def assert_minus_zero_far_below(silu: Silu) -> None:
    x = torch.tensor([-43.0, -50.0, -88.0, -1000.0, -65504.0, -3.3e38])
    assert torch.equal(silu(x).view(torch.int32), torch.full_like(x, -0.0).view(torch.int32))
