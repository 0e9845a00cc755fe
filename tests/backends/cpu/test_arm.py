"""The kernels for Arm (NEON), cross-compiled and run by QEMU, compared with the reference: see calls.cpp.

Debian's packages g++-aarch64-linux-gnu and qemu-user have what this needs. On Arm itself the other tests do this.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional as F

from cpu_kernels import COMPOSED, Expected, usable_instruction_sets
from effkernels.ops._depthwise_conv_wgrad import DEPTHWISE_WGRAD
from effkernels.reference.convolution import output_size
from effkernels_build.toolchain import Compiler, find_compiler
from emulator import Emulator
from kernel_programs import build_program
from specs import (
    conv_bn_act,
    depthwise_conv_bn_act,
    mbconv,
    pointwise_conv_bn_act,
    squeeze_excite,
    squeeze_excite_gate,
)
from specs.case import Case
from specs.generators import cases
from specs.style import DTYPES
from specs.tolerance import assert_within_eager
from suite_guard import NO_EMULATOR

pytestmark = pytest.mark.slow

# Enough for fused multiply-adds; with -O3, depthwise_row.cpp takes four times as long to compile.
OPTIMISED = ("-O1", "-fexpensive-optimizations")


@dataclass(frozen=True)
class Programs:
    """Commands."""

    calls: list[str]
    threads: list[str]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    if "neon" in usable_instruction_sets():
        pytest.skip("an Arm processor, on which the other tests run these kernels")
    compiler = find_compiler({**os.environ, "CXX": "aarch64-linux-gnu-g++"})
    if not isinstance(compiler, Compiler):
        pytest.skip(f"aarch64-linux-gnu-g++ is the compiler {NO_EMULATOR}")
    qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if qemu is None:
        pytest.skip(f"qemu-aarch64 is the emulator {NO_EMULATOR}")
    folder = tmp_path_factory.mktemp("arm")

    def build(driver: str) -> list[str]:
        program = build_program(
            *(Path(__file__).with_name(driver), compiler, folder),
            machine="aarch64",
            kernel_flags=OPTIMISED,
            link_flags=("-static",),
        )
        return [qemu, str(program)]

    return Programs(build("calls.cpp"), build("thread_sanitizer.cpp"))


@pytest.fixture(scope="module")
def neon(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    emulator = Emulator(programs.calls, tmp_path_factory.mktemp("calls") / "log")
    yield emulator
    assert emulator.close() == 0


def assert_matches(neon: Emulator, case: Case) -> None:
    """Check the case's ops by the tolerance rule, as assert_kernels_match does with this processor's kernels."""
    for check in case.checks():
        if check.op not in COMPOSED:
            expected = Expected(check)
            arguments = case.flat(check.op, check.arguments)
            actual = neon.call(check.op, arguments, expected.eager, case.style.threads)
            expected.assert_matched(actual, "neon")


OPS = {
    module.__name__.split(".")[-1]: module
    for module in (
        *(conv_bn_act, depthwise_conv_bn_act, mbconv),
        *(pointwise_conv_bn_act, squeeze_excite, squeeze_excite_gate),
    )
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("op", "name"), [(op, name) for op in OPS for name in OPS[op].SAMPLES])
def test_samples(neon: Emulator, op: str, name: str, dtype: torch.dtype, seed: int) -> None:
    assert_matches(neon, OPS[op].SAMPLES[name].styled(dtype=dtype, seed=seed))


@pytest.mark.parametrize(("op", "name"), [(op, name) for op in OPS for name in OPS[op].EDGES])
def test_paths(neon: Emulator, op: str, name: str, seed: int) -> None:
    """In one dtype, which the run's seed chooses: in all three they would take a minute."""
    dtype = random.choice(DTYPES)
    assert_matches(neon, OPS[op].EDGES[name].styled(dtype=dtype, seed=seed))


@pytest.mark.parametrize("module", OPS.values(), ids=OPS)
@settings(max_examples=25)
@given(data=st.data())
def test_any_case(neon: Emulator, module: ModuleType, data: st.DataObject) -> None:
    assert_matches(neon, data.draw(cases(module.generate)))


@pytest.mark.parametrize(
    "images", [1, 8, 9]
)  # dot products with few images, a matrix product with more
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_linear(neon: Emulator, dtype: torch.dtype, images: int, biased: bool) -> None:
    x, weight = torch.randn(images, 333), torch.randn(70, 333).to(dtype)
    bias = torch.randn(70).to(dtype) if biased else None
    exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    eager = F.linear(x, weight.float(), None if bias is None else bias.float()).to(dtype)
    (y,) = neon.call("linear", (x, weight, bias), [eager], 2)
    magnitude = F.linear(x.double().abs(), weight.double().abs()).max().item()
    assert_within_eager(y, eager, exact, magnitude=magnitude, depth=333)


@pytest.mark.parametrize("name", depthwise_conv_bn_act.EDGES)
def test_gradient_of_a_depthwise_weight(neon: Emulator, name: str, seed: int) -> None:
    case = depthwise_conv_bn_act.EDGES[name].styled(seed=seed)
    a = case.arguments()
    window = [list(a[key]) for key in ("stride", "padding", "dilation")]
    size = output_size(case.size, case.kernel, case.stride, case.padding, case.dilation)
    grad = torch.randn(case.n, case.channels, *size)
    tensors = (a["x"], grad, a["weight"])

    def reference(*tensors: torch.Tensor) -> torch.Tensor:
        found: Any = DEPTHWISE_WGRAD.reference(*tensors, *window)
        return found

    eager = reference(*tensors)
    exact = reference(*(tensor.double() for tensor in tensors))
    sums = reference(*(tensor.double().abs() for tensor in tensors))
    (found,) = neon.call("depthwise_conv_wgrad", (*tensors, *window), [eager], 2)
    assert_within_eager(
        found, eager, exact, magnitude=sums.max().item(), depth=max(1, case.n * case.pixels_out)
    )


def test_exponential_is_within_two_units_in_the_last_place(neon: Emulator) -> None:
    x = torch.linspace(-87, 88, 100_003)
    (found,) = neon.call("exponential", (x,), [x], 1)
    exact = x.double().exp()
    unit = torch.ldexp(torch.ones_like(exact), torch.frexp(exact).exponent - 24)
    assert ((found.double() - exact).abs() / unit).max() <= 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_16_bit_value_passes_unchanged(neon: Emulator, dtype: torch.dtype) -> None:
    x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).view(1, -1, 1, 1)
    case = depthwise_conv_bn_act.Depthwise(1, x.shape[1], (1, 1), (1, 1), activation="identity")
    arguments = {**case.styled(dtype=dtype, norm="none").arguments(), "x": x}
    arguments["weight"] = torch.ones_like(arguments["weight"])
    (y,) = neon.call(case.op, case.flat(case.op, arguments), [x], 2)
    torch.testing.assert_close(y, x, rtol=0, atol=0, equal_nan=True)


def test_results_do_not_depend_on_threads(programs: Programs) -> None:
    """What thread_sanitizer.cpp checks, without a sanitizer."""
    done = subprocess.run(
        programs.threads, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    name, last = done.stdout.splitlines()
    assert name.startswith("neon: ")
    assert last == "ok"
