"""The CUDA kernels and their bindings as C++ for the CPU, under sanitizers; see tests/cuda/shim."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from effkernels_build import ninja_build
from effkernels_build.modules import CUDA_MODULE, FILE_NAMES, shim_module
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

SHIM = ROOT / "tests" / "cuda" / "shim"
_RUNTIMES = ("asan", "ubsan")


class ShimError(Exception):
    """What the shim says went wrong, or, where a sanitizer ended it, the sanitizer's report."""


class ShimMissingError(Exception):
    """Why there is no host shim here."""


def _runtime(compiler: Compiler, name: str) -> str:
    command = [*compiler.command, f"-print-file-name=lib{name}.so"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_absolute():
        raise ShimMissingError(f"{compiler.version} has no lib{name}.so")
    return found


class HostShim:
    """Builds a copy of the package into ``folder``, and runs its kernels in a process of their own.

    Raises:
        ShimMissingError: no C++ compiler with sanitizers, or nothing to build with.
        CompileError: it does not compile.
    """

    def __init__(self, folder: Path) -> None:
        compiler = find_compiler(os.environ)
        ninja, torch, python = find_ninja(os.environ), find_torch(), find_python_headers()
        for tool in (compiler, ninja, torch, python):
            if isinstance(tool, Missing):
                raise ShimMissingError(tool.reason)
        assert isinstance(compiler, Compiler)
        assert isinstance(torch, Torch)
        assert isinstance(python, Path)
        assert isinstance(ninja, str)
        self._preload = " ".join(_runtime(compiler, name) for name in _RUNTIMES)
        package = folder / "effkernels"
        junk = shutil.ignore_patterns("__pycache__", "*.so", "_build_info.json", "data")
        shutil.copytree(ROOT / "effkernels", package, ignore=junk, dirs_exist_ok=True)
        module = shim_module(ROOT, SHIM, compiler, torch, python)
        ninja_build.build(
            module, ROOT, folder / "work", package / FILE_NAMES[CUDA_MODULE], ninja, None
        )
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as this lives

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            path = os.pathsep.join((str(self._folder), str(ROOT / "tests" / "support")))
            self._log.truncate(0)
            self._process = subprocess.Popen(
                [sys.executable, str(SHIM / "worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                cwd=self._folder,
                env=os.environ
                | {
                    "PYTHONPATH": path,
                    "LD_PRELOAD": self._preload,
                    "ASAN_OPTIONS": "detect_leaks=0",
                    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
                },
            )
        return self._process

    def call(self, method: str, *arguments: Any) -> Any:
        """What the worker's method returns.

        Raises:
            ShimError: it raised, or ended.
        """
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        data = pickle.dumps((method, arguments))
        header = b""
        try:
            process.stdin.write(struct.pack("q", len(data)) + data)
            process.stdin.flush()
            header = process.stdout.read(8)
        except BrokenPipeError:
            pass
        if not header:
            process.wait()
            self._process = None
            self._log.seek(0)
            raise ShimError(self._log.read().decode(errors="replace"))
        status, answer = pickle.loads(process.stdout.read(*struct.unpack("q", header)))
        if status == "error":
            raise ShimError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()
            self._process = None
        self._log.close()
