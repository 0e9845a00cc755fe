"""What the compiled modules are built from: sources, flags, libraries.

`_C`       csrc/binding/{common,cpu} (pybind11 in module.cpp) and csrc/cpu.
`_C_cuda`  csrc/binding/{common,cuda} and csrc/cuda.

Only the bindings include torch's headers, through its stable ABI, so the modules load in every
torch from the target version up. The kernels (csrc/cpu and csrc/cpu/isa) are compiled once for each
instruction set; the code that chooses among them (csrc/cpu/runtime) is compiled once.
"""

from __future__ import annotations

import os
import platform
import re
import runpy
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from effkernels_build.cuda import (
    Nvcc,
    device_archs,
    gencode_flags,
    large_memory_archs,
    tensor_memory_archs,
    warpgroup_archs,
)
from effkernels_build.ninja_build import Language, Module
from effkernels_build.toolchain import Compiler, Torch, run

CXX_STANDARD = 20
# The oldest torch in which the modules load, in torch's own notation: 2.11.
TORCH_TARGET_VERSION = "0x020b000000000000"

CPU_MODULE = "_C"
CUDA_MODULE = "_C_cuda"
FILE_NAMES = {
    CPU_MODULE: CPU_MODULE + (sysconfig.get_config_var("EXT_SUFFIX") or ".so"),
    # It uses only Python's limited API: one file serves every Python from 3.10 up.
    CUDA_MODULE: CUDA_MODULE + ".abi3.so",
}

_CXX_FLAGS = (f"-std=c++{CXX_STANDARD}", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
_CXX_DEPFILE = ("-MMD", "-MF")
_NVCC_DEPFILE = ("-MD", "-MF")
# Python's symbols come from the interpreter, at load time; macOS's linker has to be told so.
_SHARED = (
    ("-shared", "-undefined", "dynamic_lookup")
    if sys.platform == "darwin"
    else ("-shared", "-pthread")
)


# No fast-math: kernels round as they are written, apart from fused multiply-adds. GCC 12 warns that its
# own intrinsics use uninitialised values.
_KERNEL_FLAGS = (
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
)


def instruction_sets(machine: str | None = None) -> dict[str, tuple[str, ...]]:
    """The instruction sets that kernels are compiled for, slowest first, and their flags.

    Compilers may not know the newest: see :func:`understood`.

    Args:
        machine: as `platform.machine()` names it; this one's by default.
    """
    machine = (machine or platform.machine()).lower()
    if machine in ("x86_64", "amd64"):
        avx2 = ("-mavx2", "-mfma", "-mf16c")
        avx512 = (
            "-mavx512f",
            "-mavx512bw",
            "-mavx512dq",
            "-mavx512vl",
            "-mprefer-vector-width=512",
        )
        pairs = (*avx2, *avx512, "-mavx512bf16")
        return {
            "baseline": (),
            "avx2": avx2,
            "avx512": (*avx2, *avx512),
            "avx512bf16": pairs,
            "amx": (*pairs, "-mamx-tile", "-mamx-bf16"),
        }
    if machine in ("aarch64", "arm64"):
        return {"neon": ()}
    return {"baseline": ()}


# Instruction sets that older compilers or assemblers do not know, and code that needs them.
_NEWER = {
    "avx512bf16": (
        "#include <immintrin.h>\n"
        "__m512 f(__m512 sums, __m512bh x) { return _mm512_dpbf16_ps(sums, x, x); }\n"
    ),
    "amx": '#include <immintrin.h>\nvoid f() { asm volatile("tdpbf16ps %tmm2, %tmm1, %tmm0"); }\n',
}

# The kernels of amx with tile registers in plain C++, for tests: see csrc/cpu/isa/tiles.h.
_TILE_TWIN = "tile_twin"


def understood(
    compiler: Compiler, isas: dict[str, tuple[str, ...]] | None = None
) -> dict[str, tuple[str, ...]]:
    """Those of the instruction sets (this machine's by default) that the compiler can compile for."""
    found: dict[str, tuple[str, ...]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "trial.cpp"), Path(folder, "trial.o")
        for isa, flags in (isas or instruction_sets()).items():
            if isa in _NEWER:
                source.write_text(_NEWER[isa])
                command = (*compiler.command, *flags, "-c", str(source), "-o", str(target))
                if run(command)[0] != 0:
                    continue
            found[isa] = flags
    return found


def with_twin(isas: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """With the twin of the tile registers, where it can be compiled; first, because it is the slowest."""
    if "avx2" not in isas:
        return isas
    return {_TILE_TWIN: (*isas["avx2"], "-DEFFKERNELS_TILE_TWIN"), **isas}


def runs_here(flags: Sequence[str], cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this machine's processor runs what is compiled with these flags; True where Linux does not tell."""
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    has = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    # Linux writes amx_tile, compilers -mamx-tile.
    asked = {f[2:].replace("-", "") for f in flags if f.startswith("-m") and "prefer" not in f}
    return has is None or asked <= set(has[1].replace("_", "").split())


def _system_includes(*folders: Path) -> list[str]:
    """Other projects' headers: their warnings are not ours to fix."""
    return [word for folder in folders for word in ("-isystem", str(folder))]


# Two thirds of the time in which a binding compiles are torch's headers.
_BINDINGS_HEADER = "binding/common/torch.h"


def _cpp(*folders: Path, language: str = "cpp") -> list[tuple[Path, str]]:
    return [(source, language) for folder in folders for source in sorted(folder.glob("*.cpp"))]


def _bindings(csrc: Path, module: str) -> list[tuple[Path, str]]:
    folder = csrc / "binding"
    return _cpp(folder / "common", folder / module, language="binding")


# Sources that take longest to compile begin first: so no processor waits for one of them in the end.
_SLOWEST = ("warpgroups", "expand_depthwise_conv_bn_act", "depthwise_row")


def _slowest_first(sources: Sequence[tuple[Path, str]]) -> tuple[tuple[Path, str], ...]:
    return tuple(sorted(sources, key=lambda source: source[0].stem not in _SLOWEST))


def _without_paths(compiler: Compiler, *folders: Path) -> tuple[str, ...]:
    """Flags that make messages show the names of files in these folders without the paths of this machine."""
    return (
        *(f"-ffile-prefix-map={folder}{os.sep}=" for folder in folders),
        # GCC would show where a link to headers leads.
        *(() if "clang" in compiler.version else ("-fno-canonical-system-headers",)),
    )


def network_layout_header(root: Path) -> str:
    """network_layout.h: the layout in which Python passes a network to C++, generated from Python."""
    source = root / "effkernels" / "_backends" / "network_layout.py"
    header: str = runpy.run_path(str(source))["header"]()
    return header


def checks_as_calls(compiler: Compiler) -> tuple[str, ...]:
    """AddressSanitizer's checks as calls instead of code in place: kernels compile in a third to a half of the time."""
    if "clang" in compiler.version:
        return ()
    return ("--param", "asan-instrumentation-with-call-threshold=0")


def cpu_module(
    root: Path,
    compiler: Compiler,
    torch: Torch,
    python: Path,
    pybind11: Path,
    record: Path,
    sanitizers: Sequence[str] = (),
    machine: str | None = None,
) -> Module:
    """`_C`; `record` is the folder of the generated build_record.h and network_layout.h.

    The compiler must compile for `machine`, as `platform.machine()` names it; this one by default.
    With sanitizers it has the kernels of `tile_twin`, none of instruction sets that share their code with
    others (the twin has avx2's vectors, the newer sets have those of avx512), and none of sets that this processor
    does not run. The bindings, which hand tensors' addresses and sizes to the kernels, are compiled as without: most
    of their code is torch's.
    """
    csrc = root / "csrc"
    isas = understood(compiler, instruction_sets(machine))
    if sanitizers:
        shared = {"avx2", *_NEWER}
        isas = {
            name: flags
            for name, flags in with_twin(isas).items()
            if name not in shared and (machine is not None or runs_here(flags))
        }
    each = "-DEFFKERNELS_FOR_EACH_ISA(f)=" + " ".join(f"f({isa})" for isa in isas)
    instrument = [f"-fsanitize={name}" for name in sanitizers]
    if sanitizers:
        # At full optimisation, instrumented kernels take ten minutes to compile.
        instrument += ["-O1", "-fno-sanitize-recover=all", "-g1", "-fno-omit-frame-pointer"]
    if "address" in sanitizers:
        instrument += checks_as_calls(compiler)
    base = (*_CXX_FLAGS, f"-I{csrc}")
    flags = (
        *base,
        f"-I{record}",
        each,
        f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}",
        *_without_paths(compiler, root, torch.include, pybind11),
        *_system_includes(python, pybind11, torch.include),
    )
    languages = {
        "binding": Language(compiler.command, flags, _CXX_DEPFILE, _BINDINGS_HEADER),
        "cpp": Language(compiler.command, flags, _CXX_DEPFILE),
    }
    sources = [*_bindings(csrc, "cpu"), *_cpp(csrc / "cpu" / "runtime")]
    for source, _ in _cpp(csrc / "cpu", csrc / "cpu" / "isa"):
        sources += [(source, isa) for isa in isas]
    for isa, isa_flags in isas.items():
        flags = (*base, *instrument, *_KERNEL_FLAGS, *isa_flags, f"-DEFFKERNELS_ISA={isa}")
        languages[isa] = Language(compiler.command, flags, _CXX_DEPFILE)
    return Module(
        name=CPU_MODULE,
        sources=_slowest_first(sources),
        languages=languages,
        link=(*compiler.command, *_SHARED, *instrument),
        link_flags=(f"-L{torch.lib}", "-ltorch_cpu", "-lc10"),
    )


def nvcc_flags(archs: Sequence[str]) -> tuple[str, ...]:
    """The flags for every .cu file, whether it becomes an object or a cubin for the tests."""
    return (f"-std=c++{CXX_STANDARD}", "-O3", *gencode_flags(archs))


def cuda_kernels(csrc: Path) -> list[Path]:
    """Every .cu file: one for each op, and the shared ones."""
    return sorted((csrc / "cuda").rglob("*.cu"))


Archs = Callable[[Sequence[str]], "list[str]"]
"""Of an architecture list, those that a source is compiled for."""

# Sources whose kernels need what not all architectures have. All others are compiled for the whole list.
SOME_ARCHS: dict[str, Archs] = {
    "depthwise_tensor_core": tensor_memory_archs,
    "expand_depthwise_conv_bn_act": large_memory_archs,
    "warpgroup_means": warpgroup_archs,
    "warpgroups": warpgroup_archs,
}


def kernel_archs(source: Path, archs: Sequence[str]) -> list[str]:
    """Those of `archs` that a .cu file is compiled for."""
    return SOME_ARCHS.get(source.stem, list)(archs)


def _cuda_sources(csrc: Path) -> list[tuple[Path, str]]:
    return [
        *_bindings(csrc, "cuda"),
        *((source, "cu") for source in cuda_kernels(csrc)),
    ]


_WITHOUT_STAND_IN = ("device_arch", "device_memory", "events", "tensor_map")


# Of UndefinedBehaviorSanitizer's checks those that find mistakes of kernels: with all of them, kernels take twice as
# long to compile. A null pointer ends the process in any case.
SHIM_SANITIZERS = (
    "address",
    "alignment",
    "bounds",
    "integer-divide-by-zero",
    "shift",
    "signed-integer-overflow",
)


def shim_module(
    root: Path,
    shim: Path,
    compiler: Compiler,
    torch: Torch,
    python: Path,
    generated: Path,
    sanitizers: Sequence[str] = SHIM_SANITIZERS,
) -> Module:
    """`_C_cuda` for CPU tensors: compiled as C++, with the tests' replacement for CUDA in `shim`.
    `generated` is the folder of network_layout.h.

    Left out is what needs CUDA itself: the op that reports the architecture of the device code, and
    the code that asks the driver.
    """
    csrc = root / "csrc"
    sanitize = tuple(f"-fsanitize={name}" for name in sanitizers)
    if sanitizers:
        sanitize += ("-fno-sanitize-recover=all", "-DEFFKERNELS_SANITIZED")
    if "address" in sanitizers:
        sanitize += checks_as_calls(compiler)
    flags = (
        *(
            f"-std=c++{CXX_STANDARD}",
            "-Og",
            "-g1",
            "-fPIC",
            "-fvisibility=hidden",
            "-Wall",
            "-Wextra",
        ),
        *("-fno-omit-frame-pointer", "-fno-strict-aliasing", "-Wno-unknown-pragmas"),
        *("-Wno-attributes", *sanitize),
        *("-DEFFKERNELS_HOST_SHIM", f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}"),
        *("-DPy_LIMITED_API=0x030a0000", f"-I{csrc}", f"-I{shim}", f"-I{generated}"),
        *_without_paths(compiler, root, torch.include),
        *_system_includes(python, torch.include),
    )
    kernels = [*_cuda_sources(csrc), *_cpp(shim), *((f, "cu") for f in sorted(shim.glob("*.cu")))]
    return Module(
        name=CUDA_MODULE,
        sources=tuple(source for source in kernels if source[0].stem not in _WITHOUT_STAND_IN),
        languages={
            "binding": Language(compiler.command, flags, _CXX_DEPFILE, _BINDINGS_HEADER),
            "cpp": Language(compiler.command, flags, _CXX_DEPFILE),
            "cu": Language((*compiler.command, "-x", "c++"), flags, _CXX_DEPFILE),
        },
        link=(*compiler.command, *_SHARED, *sanitize),
        link_flags=(f"-L{torch.lib}", "-ltorch_cpu", "-lc10"),
    )


def cuda_module(
    root: Path,
    compiler: Compiler,
    nvcc: Nvcc,
    torch: Torch,
    python: Path,
    generated: Path,
    archs: Sequence[str],
) -> Module:
    """`_C_cuda` for the architectures `archs`; `generated` is the folder of network_layout.h."""
    csrc = root / "csrc"
    host = (f"-ccbin={compiler.command[0]}",)
    binding_flags = (
        *_CXX_FLAGS,
        f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}",
        "-DUSE_CUDA",  # declares the CUDA stream functions of torch's C shim
        "-DPy_LIMITED_API=0x030a0000",
        f"-I{csrc}",
        f"-I{generated}",
        *_without_paths(compiler, root, torch.include),
        *_system_includes(python, torch.include),
    )
    languages = {
        "binding": Language(compiler.command, binding_flags, _CXX_DEPFILE, _BINDINGS_HEADER)
    }
    sources = []
    for source, language in _cuda_sources(csrc):
        if language == "cu":
            # A language for each list: the name of an object says what is in it.
            own = kernel_archs(source, archs)
            language = "cu" if own == list(archs) else "-".join(["cu", *device_archs(own)])
            flags = (
                *nvcc_flags(own),
                *host,
                "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall",
                f"-I{csrc}",
            )
            languages[language] = Language((str(nvcc.path),), flags, _NVCC_DEPFILE)
        sources.append((source, language))
    return Module(
        name=CUDA_MODULE,
        sources=_slowest_first(sources),
        languages=languages,
        # Use torch's own CUDA runtime, which is loaded already, so that a process has only one.
        link=(str(nvcc.path), "-shared", "-cudart=shared", *host, *gencode_flags(archs)),
        link_flags=(f"-L{torch.lib}", "-ltorch_cuda", "-ltorch_cpu"),
    )
