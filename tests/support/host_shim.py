"""The CUDA kernels and their bindings as C++ for the CPU, under sanitizers; see tests/backends/cuda/shim."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

from effkernels_build import ninja_build
from effkernels_build.modules import (
    CUDA_MODULE,
    FILE_NAMES,
    network_layout_header,
    shim_module,
)
from effkernels_build.toolchain import (
    Compiler,
    Missing,
    Torch,
    find_compiler,
    find_ninja,
    find_python_headers,
    find_torch,
)
from source_tree import ROOT
from workers import WorkerError, WorkerProcess

SHIM = ROOT / "tests" / "backends" / "cuda" / "shim"
_RUNTIMES = ("asan", "ubsan")


class ShimError(WorkerError):
    """The shim's error or, if a sanitizer ended it, the sanitizer's report."""


class ShimMissingError(Exception):
    """Why there is no host shim here."""


def _runtime(compiler: Compiler, name: str) -> str:
    command = [*compiler.command, f"-print-file-name=lib{name}.so"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_absolute():
        raise ShimMissingError(f"{compiler.version} has no lib{name}.so")
    return found


def build_shim(folder: Path) -> str:
    """Builds a copy of the package, with the shim as its CUDA module, into ``folder`` unless it is there already.

    Processes that test at the same time share one folder: the first builds, the others wait for it.

    Returns:
        The sanitizers' libraries, for ``LD_PRELOAD``.

    Raises:
        ShimMissingError: there is no C++ compiler with sanitizers, or a build tool is missing.
        CompileError: it does not compile.
    """
    compiler = find_compiler(os.environ)
    ninja, torch, python = find_ninja(os.environ), find_torch(), find_python_headers()
    for tool in (compiler, ninja, torch, python):
        if isinstance(tool, Missing):
            raise ShimMissingError(tool.reason)
    assert isinstance(compiler, Compiler)
    assert isinstance(torch, Torch)
    assert isinstance(python, Path)
    assert isinstance(ninja, str)
    preload = " ".join(_runtime(compiler, name) for name in _RUNTIMES)
    package = folder / "effkernels"
    built = package / FILE_NAMES[CUDA_MODULE]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not built.exists():
            junk = shutil.ignore_patterns("__pycache__", "*.so", "_build_info.json", "data")
            shutil.copytree(ROOT / "effkernels", package, ignore=junk, dirs_exist_ok=True)
            (folder / "network_layout.h").write_text(network_layout_header(ROOT))
            module = shim_module(ROOT, SHIM, compiler, torch, python, folder)
            ninja_build.build(module, ROOT, folder / "work", built, ninja, None)
    return preload


class HostShim(WorkerProcess):
    """Runs the CUDA kernels in a separate process, from ``folder``; raises what `build_shim` does."""

    error = ShimError

    def __init__(self, folder: Path) -> None:
        preload = build_shim(folder)
        super().__init__(
            SHIM / "worker.py",
            folder,
            {
                # The root comes last: it contains the package without its compiled modules.
                "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT / "tests" / "support", ROOT))),
                "LD_PRELOAD": preload,
                "ASAN_OPTIONS": "detect_leaks=0",
                "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
            },
        )
