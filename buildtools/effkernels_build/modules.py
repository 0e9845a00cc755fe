"""What the compiled modules consist of: sources, flags, libraries.

`_C`       csrc/binding/module.cpp and all of csrc/cpu: pybind11, no torch header.
`_C_cuda`  csrc/binding/cuda and all of csrc/cuda. Only the bindings see torch, through its stable
           ABI, so the module loads in every torch from the target version up.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from effkernels_build.cuda import Nvcc, gencode_flags
from effkernels_build.ninja_build import Language, Module
from effkernels_build.toolchain import Compiler, Torch

CXX_STANDARD = 20
# The oldest torch that the CUDA module loads in, as torch spells it: 2.11.
TORCH_TARGET_VERSION = "0x020b000000000000"

CPU_MODULE = "_C"
CUDA_MODULE = "_C_cuda"
FILE_NAMES = {
    CPU_MODULE: CPU_MODULE + (sysconfig.get_config_var("EXT_SUFFIX") or ".so"),
    # It uses Python's limited API: one file serves every Python from 3.10 up.
    CUDA_MODULE: CUDA_MODULE + ".abi3.so",
}

_CXX_FLAGS = (f"-std=c++{CXX_STANDARD}", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
_CXX_DEPFILE = ("-MMD", "-MF")
_NVCC_DEPFILE = ("-MD", "-MF")
# Symbols of Python are the interpreter's to give; macOS has to be told so.
_SHARED = ("-shared", "-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-shared",)


def _system_includes(*folders: Path) -> list[str]:
    """Other projects' headers: their warnings are not ours to fix."""
    return [word for folder in folders for word in ("-isystem", str(folder))]


def cpu_module(
    root: Path, compiler: Compiler, python: Path, pybind11: Path, record: Path
) -> Module:
    """`_C`; `record` is the folder of the generated build_record.h."""
    csrc = root / "csrc"
    flags = (*_CXX_FLAGS, f"-I{csrc}", f"-I{record}", *_system_includes(python, pybind11))
    return Module(
        name=CPU_MODULE,
        sources=(csrc / "binding" / "module.cpp", *sorted((csrc / "cpu").glob("*.cpp"))),
        languages={".cpp": Language(compiler.command, flags, _CXX_DEPFILE)},
        link=(*compiler.command, *_SHARED),
        link_flags=(),
    )


def nvcc_flags(archs: Sequence[str]) -> tuple[str, ...]:
    """The flags of every .cu file, for objects and for the cubins that the tests compile."""
    return (f"-std=c++{CXX_STANDARD}", "-O3", *gencode_flags(archs))


def cuda_module(
    root: Path, compiler: Compiler, nvcc: Nvcc, torch: Torch, python: Path, archs: Sequence[str]
) -> Module:
    """`_C_cuda` for the architectures `archs`."""
    csrc = root / "csrc"
    host = (f"-ccbin={compiler.command[0]}",)
    binding_flags = (
        *_CXX_FLAGS,
        f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}",
        "-DUSE_CUDA",  # declares the part of the C shim that speaks of CUDA streams
        "-DPy_LIMITED_API=0x030a0000",
        f"-I{csrc}",
        *_system_includes(python, torch.include),
    )
    device_flags = (
        *nvcc_flags(archs),
        *host,
        "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall",
        f"-I{csrc}",
    )
    return Module(
        name=CUDA_MODULE,
        sources=(
            *sorted((csrc / "binding" / "cuda").glob("*.cpp")),
            *sorted((csrc / "cuda").glob("*.cu")),
        ),
        languages={
            ".cpp": Language(compiler.command, binding_flags, _CXX_DEPFILE),
            ".cu": Language((str(nvcc.path),), device_flags, _NVCC_DEPFILE),
        },
        # One CUDA runtime a process: torch's own, which is loaded before this module.
        link=(str(nvcc.path), "-shared", "-cudart=shared", *host, *gencode_flags(archs)),
        link_flags=(f"-L{torch.lib}", "-ltorch_cuda", "-ltorch_cpu"),
    )
