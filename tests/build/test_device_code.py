"""The device code of the installed CUDA module: registers, spills and instructions of its kernels.

It covers the architectures that the module was built for: by default all, each with its own machine code.
"""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

import effkernels
from effkernels._backends import compiled
from effkernels_build.cuda import device_archs
from effkernels_build.modules import CUDA_MODULE, FILE_NAMES, cuda_kernels, kernel_archs
from source_tree import ROOT

CSRC = ROOT / "csrc"
SOURCES = cuda_kernels(CSRC)
MODULE = Path(effkernels.__file__).parent / FILE_NAMES[CUDA_MODULE]
WHY_NOT = compiled.compiled_status()["cuda"]
needs_cuda_module = pytest.mark.skipif(WHY_NOT is not None, reason=f"no _C_cuda: {WHY_NOT}")
# As in "9.0a"; of these there is machine code.
ARCHS = [arch.removesuffix("+PTX") for arch in compiled.build_info()["cuda_archs"] or ()]

# Registers per thread, by a part of the mangled name; the first match counts. They let as many blocks fit on a
# multiprocessor as the kernels intend: 2 of 256 threads with 128 registers, 3 with 80, 4 with 64.
CEILINGS = {
    r"depthwise_nhwc_fwd_kernel.*TraitsILi[35]E": 128,
    r"depthwise_nhwc_fwd_kernel.*TraitsILi7E": 208,
    r"depthwise_nhwc_general_fwd_kernel": 80,
    r"pointwise_nhwc_fwd_kernel.*TileConfigILi8ELi1ELi1ELi1E": 80,
    r"pointwise_nhwc_fwd_kernel|pointwise_few_nhwc_fwd_kernel": 128,
    r"pointwise_nhwc_general_fwd_kernel": 80,
    # At the launch of 512, 384 and 256 threads, one block; those that multiply take over what the others give back.
    r"pointwise_nhwc_warpgroup_fwd_kernel.*WarpgroupConfigILi\d+ELi3E": 128,
    r"pointwise_nhwc_warpgroup_fwd_kernel.*WarpgroupConfigILi\d+ELi2E": 168,
    r"pointwise_nhwc_warpgroup_fwd_kernel.*WarpgroupConfigILi\d+ELi1E": 255,
    # 640 threads on a multiprocessor of 3x3, 512 of 5x5.
    r"depthwise_rows_nhwc_fwd_kernel.*Li3ELi[12]E": 96,
    r"depthwise_rows_nhwc_fwd_kernel.*Li5ELi[12]E": 128,
    r"expand_depthwise_nhwc_fwd_kernel": 168,  # one block of 384 threads
    r"conv_nhwc_fwd_kernel": 128,
    # Three blocks of 256 threads where weights take 20 registers, two elsewhere.
    r"stem_nhwc_fwd_kernel.*Li4E": 80,
    r"stem_nhwc_fwd_kernel.*Li[68]E": 128,
    r"sums_gate_fwd_kernel": 128,  # 512 threads on a multiprocessor: weights of two rows on their way
    r"squeeze_excite_gate_fwd_kernel": 64,
    r"squeeze_nhwc_fwd_kernel|scale_nhwc_fwd_kernel": 64,
    r"mean_of_parts_kernel": 40,
    r"narrow_features_kernel": 40,
    r"device_arch_kernel|dependent_launch_probe_kernel|hold_up_kernel": 16,
}

# Instructions of the loops of depthwise_tensor_core.cu that multiply a row and store the one before, with SiLU: 256
# results for each of a warp's, or twice as many rows of stride 2. At most 10 % more than what an H100 was measured
# with: 24 thread-instructions a result of 5x5 at 28 px, all parts of the kernel counted.
STEADY = {(3, 1): 91, (3, 2): 116, (5, 1): 118, (5, 2): 149}
DEPTHWISE_WITH_SILU = r"depthwise_rows_nhwc_fwd_kernel\w*?ELi(\d)ELi(\d)ELb1E"

# The same of expand_depthwise_conv_bn_act.cu, by input channels / 8, kernel and stride: the loop that multiplies 32
# pixels for 16 channels of the expanded map, and the one around it, a step with all that it does once.
EXPANDING = {
    (2, 3, 2): (204, 1088),
    (3, 3, 2): (208, 1154),
    (3, 3, 1): (331, 1658),
    (3, 5, 2): (200, 1108),
    (5, 3, 1): (271, 1429),
    (5, 5, 2): (219, 1211),
}
EXPANDING_WITH_SILU = r"expand_depthwise_nhwc_fwd_kernel\w*?ELi(\d)ELi(\d)ELi(\d)E{3}Lb1E"


class Kernel(NamedTuple):
    """What a multiprocessor has to provide for a kernel; ``source`` is the name of its .cu file."""

    source: str
    name: str
    registers: int
    stack: int


def run(tool: str, *arguments: str) -> str:
    command = [tool, *arguments, str(MODULE)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@functools.cache
def all_kernels(cuobjdump: str) -> dict[str, list[Kernel]]:
    """By architecture, as cuobjdump names it."""
    found: dict[str, list[Kernel]] = {}
    for code in run(cuobjdump, "-res-usage").split("Fatbin elf code:")[1:]:
        arch = re.search(r"^arch = (sm_\w+)$", code, flags=re.MULTILINE)
        assert arch is not None
        usage = re.findall(
            r"Function (\w*?_GLOBAL__N__\w{8}_\d+_(\w+?)_cu_\w+):\s+REG:(\d+) STACK:(\d+)", code
        )
        assert len(usage) == code.count("Function ")
        found.setdefault(arch[1], []).extend(
            Kernel(source, name, int(count), int(stack)) for name, source, count, stack in usage
        )
    return found


def kernels(cuobjdump: str, arch: str) -> list[Kernel]:
    return all_kernels(cuobjdump)[device_archs([arch])[0]]


def ceiling(kernel: str) -> int:
    return next(most for pattern, most in CEILINGS.items() if re.search(pattern, kernel))


@needs_cuda_module
@pytest.mark.parametrize("arch", ARCHS)
def test_every_source_has_kernels(arch: str, cuobjdump: str) -> None:
    """Apart from those that have host code alone."""
    expected = {
        source.stem
        for source in SOURCES
        if arch in kernel_archs(source, ARCHS)
        and re.search("EFFKERNELS_KERNEL|__global__", source.read_text())
    }
    assert {kernel.source for kernel in kernels(cuobjdump, arch)} == expected


@needs_cuda_module
@pytest.mark.parametrize("arch", ARCHS)
def test_registers_and_spills(arch: str, cuobjdump: str) -> None:
    found = kernels(cuobjdump, arch)
    assert {k: k.registers for k in found if k.registers > ceiling(k.name)} == {}
    assert {k: k.stack for k in found if k.stack > 0} == {}


@needs_cuda_module
@pytest.mark.skipif("9.0a" not in ARCHS, reason="no code for 9.0a")
def test_warpgroups_pass_registers_on(cuobjdump: str) -> None:
    """Those that take more wait for ever if the launch had fewer than `WarpgroupConfig::kLaunched` a thread."""
    passing = r"pointwise_nhwc_warpgroup_fwd_kernel.*WarpgroupConfigILi\d+ELi[23]E"
    found = [k for k in kernels(cuobjdump, "9.0a") if re.search(passing, k.name)]
    assert found
    assert {k: k.registers for k in found if k.registers != ceiling(k.name)} == {}


def loops(cuobjdump: str, pattern: str) -> dict[tuple[int, ...], list[int]]:
    """Instructions over which loops of tensor-core products and special functions jump back, the fewest first.

    Of bfloat16's kernels with this pattern, whose groups are the keys.
    """
    names = [
        k.name
        for k in kernels(cuobjdump, "9.0a")
        if re.search(pattern, k.name) and "BFloat16" in k.name
    ]
    sass = run(cuobjdump, "-sass", "-arch", "sm_90a", "-fun", ",".join(names))
    found = {}
    for function in sass.split("Function : ")[1:]:
        name = re.search(pattern, function.split()[0])
        assert name is not None
        code = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", function)
        places = {int(address, 16): i for i, (address, _) in enumerate(code)}
        lengths = []
        for i, (_, instruction) in enumerate(code):
            jump = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", instruction)
            start = places.get(int(jump[1], 16), i) if jump else i
            body = " ".join(text for _, text in code[start : i + 1])
            if start < i and "HMMA" in body and "MUFU.EX2" in body:
                lengths.append(i + 1 - start)
        found[tuple(map(int, name.groups()))] = sorted(lengths)
    return found


@needs_cuda_module
@pytest.mark.skipif("9.0a" not in ARCHS, reason="no code for 9.0a")
def test_steady_loops(cuobjdump: str) -> None:
    found = {k: lengths[0] for k, lengths in loops(cuobjdump, DEPTHWISE_WITH_SILU).items()}
    assert found.keys() == STEADY.keys()
    assert {k: n for k, n in found.items() if n > 1.1 * STEADY[k]} == {}


@needs_cuda_module
@pytest.mark.skipif("9.0a" not in ARCHS, reason="no code for 9.0a")
def test_steady_loops_of_expand_and_depthwise(cuobjdump: str) -> None:
    found = loops(cuobjdump, EXPANDING_WITH_SILU)
    assert found.keys() > EXPANDING.keys()
    for key, measured in EXPANDING.items():
        most = [1.1 * length for length in measured]
        own = found[key][0], found[key][-1]
        assert all(n <= limit for n, limit in zip(own, most, strict=True)), (key, own)


@needs_cuda_module
def test_silu_takes_few_instructions(cuobjdump: str) -> None:
    """SiLU has bare exponentials, several elements between two branches, and one reciprocal for two of them."""
    if not any(arch.endswith("+PTX") for arch in compiled.build_info()["cuda_archs"]):
        pytest.skip("the module was built without PTX")
    functions = [
        function
        for function in run(cuobjdump, "-ptx").split(".entry ")[1:]
        if re.search(r"_\d+_(stem_|depthwise_)?conv_bn_act_cu_", function.partition("(")[0])
    ]
    assert functions
    for function in functions:
        found = re.findall(r"\b(?:ex2|tanh)\.\S+", function)
        assert set(found) == {"ex2.approx.ftz.f32"}
        reciprocals = function.count("rcp.approx.ftz.f32")
        alone = "general_fwd_kernel" in function.partition("(")[0]
        assert len(found) == (reciprocals if alone else 2 * reciprocals)
        blocks = re.split(r"^\$\w+:|\bbra\b", function, flags=re.MULTILINE)
        together = max(block.count("ex2.approx") for block in blocks)
        assert together == (1 if alone else 8)


def test_there_are_sources() -> None:
    assert SOURCES


def test_only_bindings_see_torch() -> None:
    included = re.compile(r"^\s*#\s*include\s*[<\"](torch|ATen|c10)/", flags=re.MULTILINE)
    files = [path for path in CSRC.rglob("*") if path.suffix in {".cu", ".cuh", ".h", ".cpp"}]
    seeing = {
        path.relative_to(CSRC).parts[0] for path in files if included.search(path.read_text())
    }
    assert seeing == {"binding"}
