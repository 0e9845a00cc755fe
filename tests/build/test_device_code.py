"""The device code of the installed CUDA module: registers, spills and instructions of its kernels.

It covers the architectures that the module was built for: by default all, each with its own machine code.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import effkernels
import machine_code
from effkernels._backends import compiled
from effkernels_build.cuda import device_archs
from effkernels_build.modules import CUDA_MODULE, FILE_NAMES, cuda_kernels, kernel_archs
from machine_code import Code, shortest_round
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
    r"pointwise_means_warpgroup_fwd_kernel": 168,
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

# Of pointwise/warpgroups.cu: a tile with one product of tensor cores, as an H100 was measured with; by columns of a
# warpgroup, warpgroups, how they divide the work (turns, rows, columns) and gates. Without gates all results have SiLU,
# with gates none.
TILES = {
    (96, 3, 0, 0): 570,
    (144, 3, 0, 0): 799,
    (240, 2, 0, 0): 1221,
    (96, 3, 1, 0): 558,
    (192, 2, 1, 0): 998,
    (80, 3, 2, 0): 443,
    (96, 3, 2, 0): 516,
    (112, 3, 2, 0): 582,
    (96, 2, 2, 0): 516,
    (128, 3, 1, 1): 401,
    (160, 2, 1, 1): 420,
    (192, 1, 1, 1): 480,
}
TILE = (
    r"pointwise_nhwc_warpgroup_fwd_kernel\w*?ConfigILi(\d+)ELi(\d)ELNS\w+?DivisionE(\d)E{3}Lb(\d)E"
)

# Of pointwise/warpgroup_means.cu, by segments and columns of one: 64 channels of a block's pixels with SiLU, for each
# column. An H100 was measured with 1046 for 200 columns of 4 images, and with 570 for 104 of 2.
MEANS = {(4, 56): 1046 / 200, (2, 64): 570 / 104, (3, 48): 570 / 104}
MEANS_KERNEL = r"pointwise_means_warpgroup_fwd_kernel\w*?ConfigILi(\d)ELi(\d+)E"

# Of pointwise/few_pixels.cu, by output channels of a block / 8 and gates: the loop that loads and multiplies, and the
# tensor-core products in it, as an H100 was measured with. Our loops may have more products or fewer.
FEW_PIXELS = {(2, 0): (201, 12), (1, 1): (470, 6), (2, 1): (519, 12)}
FEW = r"pointwise_few_nhwc_fwd_kernel\w*?ELi([12])ELb([01])E"

# Of stem_conv_bn_act.cu with SiLU: 16 pixels, as an H100 was measured with; by layout (NCHW or not) and result's
# channels / 8.
STEMS = {(1, 4): 192, (1, 6): 278, (1, 8): 355, (0, 4): 192, (0, 6): 278, (0, 8): 339}
STEM = r"stem_nhwc_fwd_kernel\w*?ELb([01])ELi(\d)E"


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
    passing = (
        r"pointwise_nhwc_warpgroup_fwd_kernel.*WarpgroupConfigILi\d+ELi[23]E"
        r"|pointwise_means_warpgroup_fwd_kernel"
    )
    found = [k for k in kernels(cuobjdump, "9.0a") if re.search(passing, k.name)]
    assert found
    assert {k: k.registers for k in found if k.registers != ceiling(k.name)} == {}


def codes(cuobjdump: str, pattern: str) -> Iterator[tuple[tuple[int, ...], Code]]:
    """bfloat16's kernels for 9.0a with this pattern, and its groups."""
    names = {k.name: re.search(pattern, k.name) for k in kernels(cuobjdump, "9.0a")}
    chosen = {name: m for name, m in names.items() if m is not None and "BFloat16" in name}
    sass = run(cuobjdump, "-sass", "-arch", "sm_90a", "-fun", ",".join(chosen))
    for code in machine_code.kernels(sass):
        yield tuple(map(int, chosen[code.name].groups())), code


def loops(cuobjdump: str, pattern: str) -> dict[tuple[int, ...], list[int]]:
    """Instructions of loops with tensor-core products and special functions, the fewest first, by `codes`' groups."""
    found = {}
    for groups, code in codes(cuobjdump, pattern):
        lengths = []
        for first, last in code.loops():
            body = " ".join(code.instructions[first : last + 1])
            if "HMMA" in body and "MUFU.EX2" in body:
                lengths.append(last + 1 - first)
        found[groups] = sorted(lengths)
    return found


SOME_CODE = """
 Function : one
 /*0000*/ MOV R1, R2 ;
 /*0010*/ @P0 BRA 0x40 ;
 /*0020*/ MUFU.EX2 R3, R1 ;
 /*0030*/ FADD R3, R3, 1 ;
 /*0040*/ @!P1 BRA 0x60 ;
 /*0050*/ MUFU.EX2 R3, R3 ;
 /*0060*/ @P2 BRA 0x0 ;
 /*0070*/ EXIT ;
 /*0080*/ BRA 0x80 ;
"""


def test_rounds_pass_what_they_should() -> None:
    (code,) = machine_code.kernels(SOME_CODE)
    by_exponentials = {n: shortest_round(code, {"MUFU.EX2": n}) for n in range(3)}
    assert by_exponentials == {0: 4, 1: 5, 2: 7}
    with pytest.raises(ValueError, match="empty"):
        shortest_round(code, {"MUFU.EX2": 3})


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
@pytest.mark.skipif("9.0a" not in ARCHS, reason="no code for 9.0a")
def test_steady_loops_of_1x1(cuobjdump: str) -> None:
    found = {}
    for key, code in codes(cuobjdump, TILE):
        columns, _, _, gated = key
        stores = {"HGMMA": 1, "STSM": columns // 16}
        found[key] = shortest_round(code, {**stores, "MUFU.EX2": 0 if gated else columns // 2})
    assert found.keys() > TILES.keys()
    assert {k: found[k] for k in TILES if found[k] > 1.1 * TILES[k]} == {}


@needs_cuda_module
@pytest.mark.skipif("9.0a" not in ARCHS, reason="no code for 9.0a")
def test_steady_loops_of_few_pixels(cuobjdump: str) -> None:
    found = {}
    for key, code in codes(cuobjdump, FEW):
        bodies = [code.instructions[first : last + 1] for first, last in code.loops()]
        (body,) = (body for body in bodies if any("HMMA" in text for text in body))
        found[key] = len(body) / sum("HMMA" in text for text in body)
    measured = {key: length / products for key, (length, products) in FEW_PIXELS.items()}
    assert found.keys() > measured.keys()
    assert {k: found[k] for k in measured if found[k] > 1.1 * measured[k]} == {}


@needs_cuda_module
@pytest.mark.skipif("9.0a" not in ARCHS, reason="no code for 9.0a")
def test_steady_loops_of_stems(cuobjdump: str) -> None:
    of_stores = {4: 2, 6: 4, 8: 4}  # 16 bytes each, or 8
    found = [
        (key, shortest_round(code, {"MUFU.EX2": 4 * key[1], "STG": of_stores[key[1]]}))
        for key, code in codes(cuobjdump, STEM)
    ]
    assert {key for key, _ in found} == STEMS.keys()
    assert [(key, n) for key, n in found if n > 1.1 * STEMS[key]] == []


@needs_cuda_module
@pytest.mark.skipif("9.0a" not in ARCHS, reason="no code for 9.0a")
def test_steady_loops_of_means(cuobjdump: str) -> None:
    found = {}
    for (segments, width), code in codes(cuobjdump, MEANS_KERNEL):
        columns = segments * width
        length = shortest_round(code, {"MUFU.EX2": columns // 2, "HGMMA": 4})
        found[segments, width] = length / columns
    assert found.keys() == MEANS.keys()
    assert {key: n for key, n in found.items() if n > 1.1 * MEANS[key]} == {}


# Of sums_gate.cu: the loop of the first product that loads and multiplies four steps of weights. An H100 was measured
# with 159 for 16 products: two pieces of each mean, of which ours are three for bfloat16.
GATE_LOADS, GATE_PRODUCTS = 8, 24


@needs_cuda_module
@pytest.mark.skipif("9.0a" not in ARCHS, reason="no code for 9.0a")
def test_steady_loops_of_gates(cuobjdump: str) -> None:
    found = [
        shortest_round(code, {"LDG.E.128": GATE_LOADS, "HMMA": GATE_PRODUCTS})
        for _, code in codes(cuobjdump, r"sums_gate_fwd_kernel")
    ]
    assert len(found) == 4
    assert [n for n in found if n / GATE_PRODUCTS > 1.1 * 159 / 16] == []


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
        stem = "stem_nhwc_fwd_kernel" in function.partition("(")[0]
        assert together == (1 if alone else 16 if stem else 8)


def test_there_are_sources() -> None:
    assert SOURCES


def test_only_bindings_see_torch() -> None:
    included = re.compile(r"^\s*#\s*include\s*[<\"](torch|ATen|c10)/", flags=re.MULTILINE)
    files = [path for path in CSRC.rglob("*") if path.suffix in {".cu", ".cuh", ".h", ".cpp"}]
    seeing = {
        path.relative_to(CSRC).parts[0] for path in files if included.search(path.read_text())
    }
    assert seeing == {"binding"}
