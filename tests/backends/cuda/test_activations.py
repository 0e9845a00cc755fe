"""SiLU, two elements with one reciprocal, for every value of the 16-bit types."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from host_shim import HostShim

HALVES = [torch.float16, torch.bfloat16]
ENDS = [torch.nan, torch.inf, -torch.inf, 3e38, -3e38, 0.0, -43.0, -42.0, 1.0]


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
    known = ~exact.isnan()
    infinite = known & exact.isinf()
    assert torch.equal(y[infinite].double(), exact[infinite])
    finite = known & exact.isfinite()
    units = torch.finfo(torch.float32).eps / 2
    allowed = exact[finite].abs() * units * (1.5 * x[finite].abs().clamp(max=90) + 8) + 1e-17
    # float32 has no smaller numbers than these.
    allowed += torch.finfo(torch.float32).tiny
    assert ((y[finite].double() - exact[finite]).abs() <= allowed).all()


@pytest.mark.parametrize("together", [1, 2, 3])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_value(shim: HostShim, dtype: torch.dtype, together: int) -> None:
    x = every(dtype)
    # Each value at each place.
    for shift in range(together):
        rolled = x.roll(shift)[: x.numel() // together * together]
        assert_is_silu(shim.call("silu", rolled, together), rolled)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_rounded_it_is_the_exact_value_from_minus_20_to_20(
    shim: HostShim, dtype: torch.dtype
) -> None:
    x = every(dtype)
    x = x[x.abs() <= 20]
    y, exact = shim.call("silu", x, 2), exact_silu(x)
    rounded = y.to(dtype)
    # Where they differ, the exact value lies in the middle between the two but for float32's error.
    middle = (rounded.double() + exact.to(dtype).double()) / 2
    differ = rounded != exact.to(dtype)
    assert differ.sum() <= x.numel() // 1000
    near = (exact - middle).abs() <= exact.abs() * 2**-18 + 1e-17
    assert (near | ~differ).all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("neighbour", ENDS)
def test_an_element_does_not_see_the_other_one(
    shim: HostShim, dtype: torch.dtype, neighbour: float
) -> None:
    x = every(dtype)
    for place in range(2):
        pairs = torch.full((x.numel(), 2), neighbour)
        pairs[:, place] = x
        y = shim.call("silu", pairs.flatten(), 2).view(-1, 2)
        assert_is_silu(y[:, place], x)
        assert_is_silu(y[:, 1 - place], pairs[:, 1 - place])


def test_far_below_it_is_minus_zero(shim: HostShim) -> None:
    x = torch.tensor([-43.0, -50.0, -88.0, -1000.0, -65504.0, -3.3e38])
    y = shim.call("silu", x, 2)
    assert torch.equal(y.view(torch.int32), torch.full_like(x, -0.0).view(torch.int32))
