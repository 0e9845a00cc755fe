"""Products of bfloat16 by instructions for pairs of terms: what they round, and who may use them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from cpu_kernels import instruction_set, run_kernels, usable_instruction_sets
from effkernels import ops
from effkernels_build.modules import understood, with_twin
from effkernels_build.toolchain import Compiler, find_compiler
from processes import run_python
from source_tree import ROOT
from specs.oracle import in_float64, run_reference
from tiers import slow_unless

PAIRS = [name for name in usable_instruction_sets() if name in ("tile_twin", "avx512bf16", "amx")]


@pytest.mark.parametrize("channels", [1, 31, 64, 97])
@pytest.mark.parametrize("name", PAIRS)
def test_only_the_result_is_rounded(name: str, channels: int, seed: int) -> None:
    """BatchNorm's scale is applied to the sums: weights that are scaled and rounded again would be further off."""
    torch.manual_seed(seed)
    x = torch.randn(1, channels, 7, 7).bfloat16()
    bn = ops.BatchNorm(
        torch.randn(70), torch.randn(70), torch.randn(70), torch.rand(70) + 0.1, 1e-3
    )
    arguments = {
        "x": x,
        "weight": torch.randn(70, channels).bfloat16(),
        "bn": bn,
        "activation": "relu",
    }
    (exact,) = run_reference(ops.pointwise_conv_bn_act, in_float64(arguments))
    with instruction_set(name):
        (y,) = run_kernels(ops.pointwise_conv_bn_act, arguments)
    # Half a unit in the last of 8 bits; and what summing in float32 rounds.
    half = torch.ldexp(torch.ones_like(exact), torch.frexp(exact).exponent - 9)
    allowed = half + 1e-6 * channels**0.5 * exact.abs().max()
    assert ((y.double() - exact).abs() <= allowed).all()


@pytest.mark.parametrize("name", PAIRS)
def test_infinities_stay_in_their_rows(name: str) -> None:
    """What is read beside a row's terms, or a block's rows, must not reach its sums."""
    x = torch.ones(1, 37, 1, 19).bfloat16().contiguous(memory_format=torch.channels_last)
    x[0, 0, 0, ::2] = torch.inf
    arguments = {"x": x, "weight": torch.ones(3, 37).bfloat16(), "activation": "identity"}
    with instruction_set(name):
        (y,) = run_kernels(ops.pointwise_conv_bn_act, arguments)
    assert (y[..., ::2] == torch.inf).all()
    assert (y[..., 1::2] == 37).all()


_SMALL_STACK = """
import ctypes
class Stack(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(8192)
stack = Stack(ctypes.addressof(memory), 0, 8192)
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0
import effkernels._backends.compiled as compiled
print(*compiled.build_info()["instruction_sets"]["kernels"])
"""


@pytest.mark.skipif("amx" not in usable_instruction_sets(), reason="no AMX here")
def test_without_the_systems_permission_the_next_best_is_used() -> None:
    """Linux refuses the tile registers to a process whose signal stack could not hold them."""
    done = run_python("-c", _SMALL_STACK)
    assert done.stdout.split() == [n for n in usable_instruction_sets() if n != "amx"], done.stderr


@pytest.mark.parametrize("name", slow_unless(["tile_twin"], ["tile_twin", "avx512bf16", "amx"]))
def test_products_of_tiles_and_vectors(name: str, tmp_path: Path) -> None:
    """Also the twin of the tiles, on any x86-64 processor with AVX2, under sanitizers."""
    compiler = find_compiler(os.environ)
    if not isinstance(compiler, Compiler):
        pytest.skip(compiler.reason)
    isas = with_twin(understood(compiler))
    if (
        name not in isas
        or (name if name != "tile_twin" else "avx2") not in usable_instruction_sets()
    ):
        pytest.skip(f"no {name} here")
    sources = ["tests/backends/cpu/pair_products.cpp", "csrc/cpu/runtime/processor.cpp"]
    command = [*compiler.command, "-std=c++20", "-O1", "-g1", f"-I{ROOT / 'csrc'}", *isas[name]]
    command += [f"-DEFFKERNELS_ISA={name}", *(str(ROOT / source) for source in sources)]
    program = tmp_path / "pair_products"
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    # Some compilers come without sanitizers' libraries.
    for flags in (sanitize, []):
        built = subprocess.run(
            [*command, *flags, "-o", str(program)], capture_output=True, text=True, check=False
        )
        if built.returncode == 0:
            break
    assert built.returncode == 0, built.stderr
    env = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    done = subprocess.run([str(program)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Some roundings to 24 bits.
    assert float(done.stdout) < 4 * 2**-24
