"""SiLU as CUDA's kernels compute it, two elements with one reciprocal: the same source in the host shim."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from host_shim import HostShim
from silu import (
    HALVES,
    NEIGHBOURS,
    Silu,
    assert_is_silu,
    assert_minus_zero_far_below,
    assert_pairs_are_apart,
    assert_rounds_to_silu,
    every,
)


@pytest.fixture
def silu(shim: HostShim) -> Silu:
    def compute(x: Tensor) -> Tensor:
        y: Tensor = shim.call("silu", x, 2)
        return y

    return compute


@pytest.mark.parametrize("together", [1, 2, 3])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_value(shim: HostShim, dtype: torch.dtype, together: int) -> None:
    x = every(dtype)
    # Each value at each place.
    for shift in range(together):
        rolled = x.roll(shift)[: x.numel() // together * together]
        assert_is_silu(shim.call("silu", rolled, together), rolled)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_rounded_it_is_the_exact_value(silu: Silu, dtype: torch.dtype) -> None:
    assert_rounds_to_silu(silu, dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_an_element_does_not_see_the_other_one(
    silu: Silu, dtype: torch.dtype, neighbour: float
) -> None:
    assert_pairs_are_apart(silu, dtype, neighbour)


def test_far_below_it_is_minus_zero(silu: Silu) -> None:
    assert_minus_zero_far_below(silu)
