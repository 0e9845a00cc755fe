"""Every configuration, compiled for GPUs that are not here: no spills, shared memory, tensor cores."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import effkernels
from source_tree import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="triton is not installed"
    ),
]

# Shared memory of a block, in KB, by compute capability: CUDA's programming guide, technical specifications.
SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
# What multiplies on tensor cores there.
PRODUCT = {80: "HMMA", 86: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA", 120: "HMMA"}
# float16 takes the tiles and instructions of bfloat16; both and float32 on the oldest. On those that have others for
# products, also those of float32.
DTYPES = {80: "bfloat16,float32,float16", 90: "bfloat16,products", 100: "bfloat16,products"}


@cache
def compiling() -> dict[int, Future[list[dict[str, Any]]]]:
    """Two at a time, as there are cores in small machines."""
    pool = ThreadPoolExecutor(2)
    return {capability: pool.submit(compile_for, capability) for capability in SHARED}


def compile_for(capability: int) -> list[dict[str, Any]]:
    script = str(ROOT / "tests" / "backends" / "triton" / "offline.py")
    package = str(Path(effkernels.__file__).parent.parent)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    path = os.pathsep.join((package, str(ROOT / "tests" / "support")))
    done = subprocess.run(
        [sys.executable, script, str(capability), DTYPES.get(capability, "bfloat16")],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(params=SHARED, ids="sm_{}".format, scope="module")
def capability(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def compiled(capability: int) -> list[dict[str, Any]]:
    return compiling()[capability].result()


def test_nothing_spills(compiled: list[dict[str, Any]]) -> None:
    assert len(compiled) > 40
    assert [one for one in compiled if one["spilled"]] == []


# Of what a GPU must issue for most of a network's time, a seventh more than Triton 3.6 and 3.9 made of it.
MOST_INSTRUCTIONS = {
    "_pointwise_nhwc_kernel of (24, 144, 56) torch.bfloat16 ieee plain": 690,
    "_depthwise_nhwc_kernel of 3x3/(1, 1) Config(rows=4, columns=8, block_c=64,": 1030,
    "_depthwise_nhwc_kernel of 3x3/(2, 2) Config(rows=4, columns=8,": 1140,
    "_depthwise_nhwc_kernel of 5x5/(1, 1) Config(rows=4, columns=8,": 1850,
    "_depthwise_nhwc_kernel of 5x5/(2, 2) Config(rows=2, columns=8, block_c=64,": 1430,
    "_conv_kernel of stem of 32 torch.bfloat16": 1260,
}


def test_instructions_stay_few() -> None:
    found = compiling()[90].result()
    for name, most in MOST_INSTRUCTIONS.items():
        counts = [one["instructions"] for one in found if one["kernel"].startswith(name)]
        assert len(counts) >= 2, name
        assert max(counts) <= most, (name, counts)


def test_maps_are_not_moved_two_bytes_at_a_time(compiled: list[dict[str, Any]]) -> None:
    """Where channels are multiples of 8: Triton knows of multiples of 16 by itself."""
    whole = [one for one in compiled if "sizes of 1" not in one["kernel"]]
    for kernel in ("_pointwise_nhwc", "_squeeze_nhwc", "_scale_nhwc"):
        found = [one for one in whole if one["kernel"].startswith(kernel)]
        assert found
        assert [one for one in found if one["narrow"]] == []
    # Weights lie tap by tap; results do not.
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
    assert len(products) > 20
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
                # Fifth generation: the operands' type is not in the instruction but in what it came from.
                assert one["operands"] == ["kind::f16"], one
    found = {instruction.split(".")[0] for one in products for instruction in one["products"]}
    assert PRODUCT[capability] in found


@pytest.mark.parametrize("capability", DTYPES, ids="sm_{}".format)
def test_float32_products_are_exact_unless_tf32_is_allowed(capability: int) -> None:
    compiled = compiling()[capability].result()
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
