"""Kernels compiled for GPUs that are not present: spills, shared memory, tensor cores.

For each architecture those that take most of a network's time, and for one of them every configuration; with
EFFKERNELS_TEST_ARCHS=all every configuration for all, which takes ten more minutes of processor time. Any release of
Triton works: the tests use the one that `import triton` finds.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import effkernels
from source_tree import ROOT

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="triton is not installed"
    ),
    pytest.mark.slow,
    pytest.mark.timeout(2400),  # busy machines take long
]

# Shared memory per block, in KB, by compute capability: CUDA's programming guide, technical specifications. The tables
# of configurations are the same for all architectures, so tiles for 8.0 must fit into the 99 KB of 8.6 and 8.9.
SHARED = {80: 99, 86: 99, 89: 99, 90: 227, 100: 227}
# The matrix instruction of each architecture's tensor cores.
PRODUCT = {80: "HMMA", 86: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
# float16 uses the tiles and instructions of bfloat16. All float32 kernels are compiled for the oldest; for the others,
# which have other matrix instructions, only the float32 products.
DTYPES = {80: "bfloat16,float32", 90: "bfloat16,products", 100: "bfloat16,products"}

# Instructions of the kernels that take most of a network's time: at most a seventh more than in the code that Triton
# 3.6 and 3.9 generate for sm_90.
MOST_INSTRUCTIONS = {
    "_pointwise_nhwc_fwd_kernel of (24, 144, 56) torch.bfloat16 ieee plain": 690,
    "_depthwise_nhwc_fwd_kernel of 3x3/(1, 1) Config(rows=4, columns=8, block_c=64,": 1030,
    "_depthwise_nhwc_fwd_kernel of 3x3/(2, 2) Config(rows=4, columns=8,": 1140,
    "_depthwise_nhwc_fwd_kernel of 5x5/(1, 1) Config(rows=4, columns=8,": 1850,
    "_depthwise_nhwc_fwd_kernel of 5x5/(2, 2) Config(rows=2, columns=8, block_c=64,": 1430,
    "_conv_nhwc_fwd_kernel of stem of 32 torch.bfloat16": 1260,
}
# The main kernels: for sm_90 these and those of MOST_INSTRUCTIONS, for the others some of them.
PRODUCTS = (
    "_pointwise_nhwc_fwd_kernel of (24, 144, 56) torch.bfloat16 ieee plain",
    "_pointwise_nhwc_fwd_kernel of (144, 24, 56) torch.bfloat16 ieee small maps",
)
OTHERS = (
    "_squeeze_nhwc_fwd_kernel of Config(pixels=128",
    "_scale_nhwc_fwd_kernel of Config(pixels=128",
    "_gate_fwd_kernel of Config(images=1, hidden=64,",
)
SOME = (*PRODUCTS, *OTHERS, "_depthwise_nhwc_fwd_kernel of 5x5/(1, 1) Config(rows=4, columns=8,")
MAIN = {90: (*MOST_INSTRUCTIONS, *PRODUCTS, *OTHERS), 80: SOME, 86: SOME, 89: SOME, 100: SOME}
# Everything is compiled for sm_90 or, if that is asked for, for one architecture of each kind: for 8.6, 8.9 and 12.0
# Triton generates the same as for 8.0.
ALL = (80, 90, 100) if os.environ.get("EFFKERNELS_TEST_ARCHS") == "all" else (90,)

# Bytes per thread that a kernel may spill, by the release of Triton and the beginning of its label; all others may not
# spill. 3.7 and 3.8 spill two registers of 72, once, in a convolution of 200 terms with normalised images on sm_90,
# which 3.6 and 3.9 do not: no network has it, and a stem has 27 terms. 3.8 spills two of 72 on sm_86 and sm_89 in a 1x1
# convolution that also sums for the squeeze, which no network does at these sizes.
_MORE_TERMS = {"_conv_nhwc_fwd_kernel of more terms torch.bfloat16": 8}
_SQUEEZED = {"_pointwise_nhwc_fwd_kernel of (24, 144, 56) torch.bfloat16 ieee plain": 8}
SPILLS = {"3.6": {}, "3.7": _MORE_TERMS, "3.8": _MORE_TERMS | _SQUEEZED, "3.9": {}}


@cache
def compiling(everything: bool) -> Callable[[int], Future[list[dict[str, Any]]]]:
    """Starts compiling for an architecture, everything or the main kernels; two at a time, for two cores."""
    pool = ThreadPoolExecutor(2)

    def start(capability: int) -> Future[list[dict[str, Any]]]:
        return pool.submit(compile_for, capability, *(() if everything else MAIN[capability]))

    first = {capability: start(capability) for capability in (ALL if everything else ())}
    return cache(lambda capability: first.get(capability) or start(capability))


def compile_for(capability: int, *labels: str) -> list[dict[str, Any]]:
    script = str(ROOT / "tests" / "backends" / "triton" / "offline.py")
    package = str(Path(effkernels.__file__).parent.parent)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    path = os.pathsep.join((package, str(ROOT / "tests" / "support")))
    dtypes = "bfloat16" if labels else DTYPES[capability]
    done = subprocess.run(
        [sys.executable, script, str(capability), dtypes, *labels],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


PARAMETERS = [
    *(pytest.param((n, False), id=f"main kernels, sm_{n}") for n in MAIN),
    *(pytest.param((n, True), id=f"all kernels, sm_{n}") for n in ALL),
]


@pytest.fixture(params=PARAMETERS, scope="module")
def chosen(request: pytest.FixtureRequest) -> tuple[int, bool]:
    return request.param


@pytest.fixture(scope="module")
def capability(chosen: tuple[int, bool]) -> int:
    return chosen[0]


@pytest.fixture(scope="module")
def compiled(chosen: tuple[int, bool]) -> list[dict[str, Any]]:
    capability, everything = chosen
    found = compiling(everything)(capability).result()
    assert len(found) >= (40 if everything else len(MAIN[capability]))
    return found


def allowed_to_spill(kernel: str) -> int:
    release = ".".join(importlib.metadata.version("triton").split(".")[:2])
    ceilings = SPILLS.get(release, {})
    return next((most for label, most in ceilings.items() if kernel.startswith(label)), 0)


def test_no_kernel_of_a_network_spills(compiled: list[dict[str, Any]]) -> None:
    too_much = [one for one in compiled if one["spilled"] > allowed_to_spill(one["kernel"])]
    assert too_much == []


def test_instruction_counts_stay_below_ceilings() -> None:
    found = compiling(False)(90).result()
    for name, most in MOST_INSTRUCTIONS.items():
        counts = [one["instructions"] for one in found if one["kernel"].startswith(name)]
        assert len(counts) >= 2, name
        assert max(counts) <= most, (name, counts)


def test_two_elements_of_silu_share_a_reciprocal(compiled: list[dict[str, Any]]) -> None:
    silu = [one for one in compiled if "_gate" not in one["kernel"] and one["exponentials"]]
    assert silu
    assert [one for one in silu if one["exponentials"] != 2 * one["reciprocals"]] == []


def test_maps_are_not_accessed_two_bytes_at_a_time(compiled: list[dict[str, Any]]) -> None:
    """If channels are multiples of 8 but not of 16, which Triton recognises by itself."""
    whole = [one for one in compiled if "sizes of 1" not in one["kernel"]]
    for kernel in ("_pointwise_nhwc", "_squeeze_nhwc", "_scale_nhwc"):
        found = [one for one in whole if one["kernel"].startswith(kernel)]
        assert found
        assert [one for one in found if one["narrow"]] == []
    # Weights are read tap by tap; results are not.
    found = [one for one in whole if "_depthwise" in one["kernel"] and "c=64" in one["kernel"]]
    assert found
    assert not any(access.startswith("st") for one in found for access in one["narrow"])


def test_shared_memory_suffices(compiled: list[dict[str, Any]], capability: int) -> None:
    most = SHARED[capability] * 1024
    assert [one for one in compiled if one["shared"] > most] == []


def test_products_of_16_bits_run_on_tensor_cores(
    compiled: list[dict[str, Any]], capability: int
) -> None:
    products = [one for one in compiled if "products" in one and "float32" not in one["kernel"]]
    assert len(products) >= 2
    for one in products:
        dtype = "F16" if "torch.float16" in one["kernel"] else "BF16"
        assert one["products"], one
        for instruction in one["products"]:
            if instruction.startswith("HMMA"):
                wanted = "HMMA.16816.F32" + (".BF16" if dtype == "BF16" else "")
                assert instruction == wanted, one
            elif instruction.startswith("HGMMA"):
                assert instruction.endswith("F32.BF16" if dtype == "BF16" else "F32"), one
            else:
                # Fifth generation: the operands' type is not in the instruction, but in the PTX that it came from.
                assert one["operands"] == ["kind::f16"], one
    found = {instruction.split(".")[0] for one in products for instruction in one["products"]}
    assert PRODUCT[capability] in found


@pytest.mark.parametrize("architecture", ALL, ids="sm_{}".format)
def test_float32_products_are_exact_unless_tf32_is_allowed(architecture: int) -> None:
    compiled = compiling(True)(architecture).result()
    products = [one for one in compiled if "products" in one and "float32" in one["kernel"]]
    assert {"tf32" in one["kernel"] for one in products} == {True, False}
    for one in products:
        # Fifth generation: see above.
        tf32 = [
            name
            for name in one["products"]
            if "TF32" in name or (name == "UTCHMMA" and one["operands"] == ["kind::tf32"])
        ]
        assert one["products"] == tf32, one
        assert bool(tf32) == ("tf32" in one["kernel"]), one
