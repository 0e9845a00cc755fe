"""Error messages of both compiled modules must be complete if each is linked with its own C++ library."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from effkernels_build import modules, ninja_build
from effkernels_build.modules import CPU_MODULE, CUDA_MODULE, FILE_NAMES, cpu_module, shim_module
from effkernels_build.ninja_build import CompileError, Module
from effkernels_build.record import FILE_NAME, BuildRecord
from effkernels_build.toolchain import (
    Compiler,
    Torch,
    find_compiler,
    find_ninja,
    find_pybind11,
    find_python_headers,
    find_torch,
)
from processes import run_python
from source_tree import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # compiles both modules

SHIM = ROOT / "tests" / "backends" / "cuda" / "shim"

# Of the CUDA module those sources that the calls below run, and what loading it needs; the functions that it lacks are
# never called.
CUDA_SOURCES = (
    *("conv_bn_act", "depthwise_conv_bn_act", "squeeze_excite_gate"),
    *("module", "limits", "hold", "network", "launch_records", "launch_times"),
    *("host_shim", "stacks", "tensor_memory", "clocks"),
)

# Calls that the Python functions would not let through, and the complete message of each. In the last two torch
# itself fails, because the result is larger than memory. From 2.13 on the message includes torch's reason.
SCRIPT = """
import json
import os
import sys
sys.setdlopenflags(os.RTLD_LAZY)  # functions are looked up when they are called
import torch
import effkernels
from effkernels._backends.compiled import compiled_status

assert set(compiled_status().values()) == {None}, compiled_status()
cpu, cuda = torch.ops.effkernels_cpu, torch.ops.effkernels_cuda
x = torch.ones(2, 6, 8, 8).to(memory_format=torch.channels_last)
weight, dense, none = torch.ones(6, 1, 3, 3), torch.ones(5, 6, 7, 7), [None] * 5
gate = torch.ones(3, 6), None, torch.ones(6, 3), None, "silu"


def window(x=x, weight=weight, padding=1, activation="silu"):
    return x, weight, *none, 1e-3, [1, 1], [padding] * 4, [1, 1], activation


CALLS = {
    "cpu dimensions": lambda: cpu.depthwise_conv_bn_act(*window(x[0])),
    "cpu elements": lambda: cpu.depthwise_conv_bn_act_pool(*window(weight=weight[:5])),
    "cpu activation": lambda: cpu.depthwise_conv_bn_act(*window(activation="gelu")),
    "cpu matrix": lambda: cpu.squeeze_excite_gate(x, *gate),
    "cpu steps": lambda: cpu.network(x, [], [0], []),
    "cuda dimensions": lambda: cuda.depthwise_conv_bn_act(*window(x[0])),
    "cuda matrix": lambda: cuda.squeeze_excite_gate(x, *gate),
    "cuda launcher": lambda: cuda.conv_bn_act(*window(weight=dense), None, None),
    "cpu memory": lambda: cpu.depthwise_conv_bn_act(*window(padding=2**29)),
    "cuda memory": lambda: cuda.depthwise_conv_bn_act(*window(padding=2**29)),
}
said = {}
for name, call in CALLS.items():
    try:
        call()
    except RuntimeError as error:
        said[name] = str(error)
print(json.dumps(said))
"""

EXPECTED = {
    "cpu dimensions": "effkernels_cpu::depthwise_conv_bn_act: feature maps must have 4 dimensions, not 3",
    "cpu elements": "effkernels_cpu::depthwise_conv_bn_act_pool: a parameter has the wrong number of elements: 45,"
    " not 54",
    "cpu activation": "effkernels_cpu::depthwise_conv_bn_act: unknown activation 'gelu': accepted are silu, relu,"
    " relu6, hardswish, identity",
    "cpu matrix": "effkernels_cpu::squeeze_excite_gate: pooled must be a matrix, not a tensor of 4 dimensions",
    "cpu steps": "effkernels_cpu::network: incomplete steps",
    "cuda dimensions": "effkernels_cuda::depthwise_conv_bn_act: feature maps must have 4 dimensions, not 3",
    "cuda matrix": "effkernels_cuda::squeeze_excite_gate: pooled must be a matrix, not a tensor of 4 dimensions",
    "cuda launcher": "effkernels_cuda::conv_bn_act: a sum has too many terms",
}


def part_of(module: Module) -> Module:
    """The CUDA module of few sources, without optimisation and debug information: its speed does not matter here."""
    sources = tuple(
        (source, language)
        for source, language in module.sources
        if source.parent.name == "common" or source.stem in CUDA_SOURCES
    )
    languages = {
        name: replace(how, flags=(*(f for f in how.flags if f != "-g1"), "-O0"))
        for name, how in module.languages.items()
    }
    return replace(module, sources=sources, languages=languages)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with both modules, the CUDA one for the CPU, each with its own C++ library."""
    compiler, ninja, torch = find_compiler(os.environ), find_ninja(os.environ), find_torch()
    python, pybind11 = find_python_headers(), find_pybind11(torch)
    if not isinstance(compiler, Compiler) or not isinstance(ninja, str):
        pytest.skip("no C++ compiler or no ninja")
    if not isinstance(python, Path) or not isinstance(pybind11, Path):
        pytest.skip("no headers of Python or of pybind11")
    assert isinstance(torch, Torch)
    folder = tmp_path_factory.mktemp("static")
    package = folder / "effkernels"
    junk = shutil.ignore_patterns("__pycache__", "*.so", FILE_NAME, "data")
    shutil.copytree(ROOT / "effkernels", package, ignore=junk)
    record = BuildRecord({CPU_MODULE: None, CUDA_MODULE: None}, torch.version, None, "", None)
    (folder / "build_record.h").write_text(record.as_header())
    (folder / "network_layout.h").write_text(modules.network_layout_header(ROOT))
    (package / FILE_NAME).write_text(record.as_json())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modules, "instruction_sets", lambda machine: {"baseline": ()})
        built = (
            # Compiled as usual: a compiler cache then knows the objects.
            cpu_module(ROOT, compiler, torch, python, pybind11, folder),
            part_of(shim_module(ROOT, SHIM, compiler, torch, python, folder, sanitizers=())),
        )
    for module in built:
        output = package / FILE_NAMES[module.name]
        try:
            static = replace(module, link=(*module.link, "-static-libstdc++"))
            ninja_build.build(static, ROOT, folder / module.name, output, ninja, None)
        except CompileError as error:
            pytest.fail(error.log)
    return package


def test_messages_are_complete(package: Path) -> None:
    done = run_python("-c", SCRIPT, PYTHONPATH=str(package.parent))
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    failures = {said.pop("cpu memory"), said.pop("cuda memory")}
    assert said == EXPECTED
    (failure,) = failures
    call, _, reason = failure.partition(" of torch failed")
    assert call.removeprefix("effkernels: ").isidentifier(), failure
    import torch

    if torch.torch_version.TorchVersion(torch.__version__) >= (2, 13):
        assert "sizes=[2, 6, 1073741830, 1073741830]" in reason


def test_modules_do_not_show_where_they_were_built(package: Path) -> None:
    torch = find_torch()
    pybind11 = find_pybind11(torch)
    assert isinstance(torch, Torch)
    assert isinstance(pybind11, Path)
    for name in FILE_NAMES.values():
        binary = (package / name).read_bytes()
        assert b"csrc/binding/" in binary  # names of the files that register operators
        for folder in (ROOT, torch.include, pybind11):
            assert str(folder).encode() not in binary
