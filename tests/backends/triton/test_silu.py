"""SiLU as Triton's kernels compute it on NVIDIA's GPUs: its assembly, computed here line by line."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from silu import (
    HALVES,
    NEIGHBOURS,
    assert_is_silu,
    assert_minus_zero_far_below,
    assert_pairs_are_apart,
    assert_rounds_to_silu,
    every,
)

elementwise = pytest.importorskip("effkernels._backends.triton.elementwise")


def flushed(x: Tensor) -> Tensor:
    return torch.where(x.abs() < torch.finfo(torch.float32).tiny, x * 0.0, x)


def multiply_add_within_1(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    total = (a.double() * b.double() + c.double()).float()
    return total.nan_to_num(0.0).clamp(0.0, 1.0)


INSTRUCTIONS: dict[str, Callable[..., Tensor]] = {
    "mul.f32": torch.mul,
    "add.f32": torch.add,
    "min.f32": torch.fmin,  # of NaN and a number the number
    "ex2.approx.ftz.f32": lambda x: flushed(flushed(x).exp2()),
    "rcp.approx.ftz.f32": lambda x: flushed(1.0 / flushed(x)),
    "fma.rn.sat.f32": multiply_add_within_1,
}


def silu(x: Tensor) -> Tensor:
    """Of neighbouring pairs."""
    pairs = x.view(-1, 2)
    values = {"$2": pairs[:, 0], "$3": pairs[:, 1]}

    def value(operand: str) -> Tensor:
        if operand.startswith("0f"):
            return torch.tensor(struct.unpack(">f", bytes.fromhex(operand[2:]))[0])
        return values[operand]

    lines = elementwise._SILU_OF_TWO.value.strip().splitlines()[2:-1]
    for line in lines:
        name, operands = line.strip().rstrip(";").split(maxsplit=1)
        to, *from_ = re.split(r",\s*", operands)
        values[to] = INSTRUCTIONS[name](*map(value, from_))
    return torch.stack((values["$0"], values["$1"]), 1).flatten()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_value(dtype: torch.dtype) -> None:
    for x in (every(dtype), every(dtype).roll(1)):
        assert_is_silu(silu(x), x)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_rounded_it_is_the_exact_value(dtype: torch.dtype) -> None:
    assert_rounds_to_silu(silu, dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_an_element_does_not_see_the_other_one(dtype: torch.dtype, neighbour: float) -> None:
    assert_pairs_are_apart(silu, dtype, neighbour)


def test_far_below_it_is_minus_zero() -> None:
    assert_minus_zero_far_below(silu)
