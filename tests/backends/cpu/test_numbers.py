"""Single values: the exponential function, activations, conversions between dtypes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cpu_kernels import instruction_set, module, run_kernels, run_reference, usable_instruction_sets
from effkernels import ops
from effkernels.reference.elementwise import ACTIVATIONS

SIXTEEN_BITS = (torch.bfloat16, torch.float16)


@pytest.fixture(params=usable_instruction_sets(), autouse=True)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with instruction_set(request.param):
        yield request.param


def exponential(x: Tensor) -> Tensor:
    return torch.tensor(module().exponential(x.tolist()), dtype=torch.float32)


def unit_in_the_last_place(x: Tensor) -> Tensor:
    """The unit in the last place of float32, at float64 values."""
    _, exponent = torch.frexp(x)
    return torch.ldexp(torch.ones_like(x), exponent - 24)


def test_exponential_is_within_two_units_in_the_last_place() -> None:
    # Every 1000th float from 2^-30 up, evenly spaced ones, and those around the boundaries of n ln 2 / 16.
    bits = torch.arange(0x30800000, 0x42B00000, 1000, dtype=torch.int32)
    positive = bits.view(torch.float32)
    middles = (torch.arange(-4000, 4001) * (0.6931471805599453 / 32)).float()
    near = (middles.view(torch.int32)[:, None] + torch.arange(-4, 5)).view(torch.float32)
    even = torch.linspace(-87, 88, 300_000)
    x = torch.cat([positive, -positive, near.flatten(), even, torch.tensor([0.0, -0.0, 87, -87])])
    x = x[(x >= -87) & (x <= 88)]
    assert x.numel() > 800_000
    exact = x.double().exp()
    error = (exponential(x).double() - exact).abs() / unit_in_the_last_place(exact)
    assert error.max() <= 2, f"{error.max():.2f} at {x[error.argmax()]:.9g}"


def test_exponential_saturates() -> None:
    x = torch.tensor([-87.0, -87.5, -1e30, -torch.inf, 88.0, 88.5, 1e30, torch.inf])
    low, high = exponential(x).split(4)
    assert (low == low[0]).all()
    assert (high == high[0]).all()
    assert 0 < low[0] < 1e-37
    assert 1e38 < high[0] < torch.inf


@pytest.mark.parametrize("count", [1, 3, 17])
def test_exponential_of_nan(count: int) -> None:
    x = torch.zeros(count)
    x[-1] = torch.nan
    y = exponential(x)
    assert y[-1].isnan()
    assert (y[:-1] == 1).all()


def identity(x: Tensor, activation: str = "identity") -> Tensor:
    """Pass all values through the kernel of an op that does not change them."""
    image = x.view(1, 1, 1, -1)
    call, weight = ops.depthwise_conv_bn_act, torch.ones(1, 1, 1, 1, dtype=x.dtype)
    return run_kernels(call, {"x": image, "weight": weight, "activation": activation})[0].flatten()


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_activations_everywhere(activation: str) -> None:
    # The error is at most a few units in the last place of the result, or tiny where exp underflows.
    magnitudes = torch.arange(0, 0x7F800000, 20_011, dtype=torch.int32).view(torch.float32)
    x = torch.cat([magnitudes, -magnitudes, torch.linspace(-100, 100, 200_001)])
    # PyTorch's hardswish overflows from a sixth of the largest number on, and ours may too.
    x = x[ACTIVATIONS[activation](x).isfinite()]
    exact = ACTIVATIONS[activation](x.double())
    error = (identity(x, activation).double() - exact).abs()
    allowed = 4 * unit_in_the_last_place(exact.clamp(-3e38, 3e38)).clamp(min=2.0**-149)
    worst = (error - allowed - 1e-35).argmax()
    assert (error <= allowed + 1e-35).all(), f"{x[worst]:.9g}: {error[worst]:.3e}"


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_activations_of_nan_and_infinity_are_pytorchs(activation: str) -> None:
    x = torch.tensor([0.0, 1, -1] * 11 + [torch.nan, torch.inf, -torch.inf])
    expected = ACTIVATIONS[activation](x)
    torch.testing.assert_close(identity(x, activation), expected, equal_nan=True)


def test_gates_are_pytorchs_sigmoid_also_where_it_is_zero() -> None:
    x = torch.cat(
        [torch.linspace(-120, 120, 4001), torch.tensor([torch.inf, -torch.inf, torch.nan])]
    )
    one = torch.ones(1, 1)
    arguments = {
        "pooled": x[:, None],
        **ops.Gate(one, None, one, None)._asdict(),
        "activation": "identity",
    }
    gate = run_kernels(ops.squeeze_excite_gate, arguments)[0][:, 0]
    exact = x.double().sigmoid()
    torch.testing.assert_close(gate.double(), exact, rtol=5e-7, atol=1e-38, equal_nan=True)
    assert ((gate == 0) == (torch.sigmoid(x) == 0)).all()


def all_of(dtype: torch.dtype) -> Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)


def copies(x: Tensor, channels: int) -> Tensor:
    """Pass through a matrix product, in rows that do not fill whole vectors."""
    image = x.view(1, -1, 1, channels).permute(0, 3, 1, 2)
    weight = torch.eye(channels, dtype=x.dtype)
    arguments = {"x": image, "weight": weight, "activation": "identity"}
    y = run_kernels(ops.pointwise_conv_bn_act, arguments)[0]
    return y.permute(0, 2, 3, 1).reshape(-1)


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    """Except for the sign and payload of NaN, and for the sign of zero, which is lost when 0 is added."""
    assert actual.dtype == expected.dtype
    wrong = (actual.float() != expected.float()) & ~(actual.isnan() & expected.isnan())
    assert not wrong.any(), (
        f"{int(wrong.sum())} wrong: {actual[wrong][:5]} instead of {expected[wrong][:5]}"
    )


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_every_16_bit_value_passes_unchanged(isa: str, dtype: torch.dtype) -> None:
    x = all_of(dtype)
    assert_same_bits(identity(x), x)
    # In a product, NaN and infinity turn all other channels into NaN.
    finite = torch.where(x.isfinite(), x, torch.ones((), dtype=dtype))
    # Instructions for pairs of bfloat16 may take numbers below the smallest normal one for zeros.
    flushes = dtype == torch.bfloat16 and isa in ("avx512bf16", "amx")
    tiny = flushes & (finite.float().abs() < torch.finfo(dtype).smallest_normal)
    for channels in (1, 2, 4, 16, 64):
        actual = copies(finite, channels)
        expected = torch.where(tiny & (actual == 0), actual, finite)
        assert_same_bits(actual, expected)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_silu_of_every_16_bit_value(dtype: torch.dtype) -> None:
    """It may have a tenth of a unit in the last place beside the half that rounding takes."""
    x = all_of(dtype)
    y, exact = identity(x, "silu").double(), ACTIVATIONS["silu"](x.double())
    assert (y.isnan() == ACTIVATIONS["silu"](x.float()).isnan()).all()
    y, exact = y[x.isfinite()], exact[x.isfinite()]
    error, allowed = (y - exact).abs(), 0.6 * spacing(exact, dtype) + 2e-36
    worst = (error - allowed).argmax()
    assert (error <= allowed).all(), f"{exact[worst]:.9g}: {error[worst]:.3e}"


def spacing(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance from each number to the next of a 16-bit type."""
    size = x.double().abs().clamp(min=torch.finfo(dtype).smallest_normal)
    _, exponent = torch.frexp(size)
    return torch.ldexp(torch.ones_like(size), exponent - (8 if dtype == torch.bfloat16 else 11))


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_results_are_rounded_to_nearest_even(dtype: torch.dtype) -> None:
    # x * 1 + shift, where shift is a fraction of the distance to the next value: the sum is exact in float32,
    # and falls between two values, or exactly in the middle.
    values = all_of(dtype)
    values = values[values.isfinite()]
    values = values[values.float().abs() < torch.finfo(dtype).max / 2]
    unit = spacing(values, dtype)
    for part in (0.5, -0.5, 0.4999, 0.5001, 0.25, -0.75):
        shift = (unit * part).float()
        # One channel per value, with a bias of its own.
        x, bias = values.view(1, -1, 1, 1), shift
        weight = torch.ones(values.numel(), 1, 1, 1, dtype=dtype)
        arguments = {"x": x, "weight": weight, "bias": bias, "activation": "identity"}
        y = run_kernels(ops.depthwise_conv_bn_act, arguments)[0].flatten()
        assert_same_bits(y, (values.float() + shift).to(dtype))


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_results_overflow_where_pytorchs_do(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    half = largest * torch.finfo(dtype).eps / 4
    shifts = torch.tensor([0.0, half * 0.999, half, half * 1.001, largest])
    bias = torch.cat([shifts, -shifts])
    x = torch.cat([torch.full((5,), largest), torch.full((5,), -largest)]).to(dtype)
    weight = torch.ones(10, 1, 1, 1, dtype=dtype)
    arguments = {"x": x.view(1, -1, 1, 1), "weight": weight, "bias": bias, "activation": "identity"}
    y = run_kernels(ops.depthwise_conv_bn_act, arguments)[0].flatten()
    assert_same_bits(y, (x.float() + bias).to(dtype))
    assert y.isinf().any()
    assert y.isfinite().any()


def test_reference_agrees_on_one_of_each_shape() -> None:
    # The other tests in this file rely on this: the same calls, computed by PyTorch.
    x = torch.randn(1, 3, 2, 5)
    arguments = {"x": x, "weight": torch.ones(3, 1, 1, 1), "activation": "identity"}
    for run in (run_kernels, run_reference):
        torch.testing.assert_close(run(ops.depthwise_conv_bn_act, arguments)[0], x)
