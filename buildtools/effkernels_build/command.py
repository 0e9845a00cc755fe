"""The setuptools command that builds `effkernels._C` and `effkernels._C_cuda`, each only where it can be built."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from setuptools.command.build_ext import build_ext
from setuptools.errors import SetupError

from effkernels_build import ninja_build
from effkernels_build.cuda import Nvcc, arch_list, cuda_mode, find_nvcc, why_not
from effkernels_build.modules import CPU_MODULE, CUDA_MODULE, FILE_NAMES, cpu_module, cuda_module
from effkernels_build.ninja_build import CompileError, Module
from effkernels_build.record import FILE_NAME, BuildRecord
from effkernels_build.toolchain import (
    BuildError,
    Compiler,
    Missing,
    Torch,
    find_compiler,
    find_ninja,
    find_pybind11,
    find_python_headers,
    find_torch,
    job_count,
)

ROOT = Path(__file__).resolve().parents[2]


class Builder:
    """Builds the modules into the package folder `target`, with objects in `work`; keeps the record."""

    def __init__(self, target: Path, work: Path, env: Mapping[str, str]) -> None:
        self.target, self.work, self.env = target, work, env
        self.mode = cuda_mode(env)
        self.jobs = job_count(env)
        self.torch = find_torch()
        self.compiler = find_compiler(env)
        self.ninja = find_ninja(env)
        self.python = find_python_headers()
        torch = self.torch if isinstance(self.torch, Torch) else None
        self.record = BuildRecord(
            modules={},
            torch=torch.version if torch else None,
            torch_cuda=torch.cuda if torch else None,
            compiler=self.compiler.version if isinstance(self.compiler, Compiler) else None,
            cuda=None,
        )

    def build(self) -> BuildRecord:
        """Build what can be built, CUDA first: `_C` carries the record of both.

        Raises:
            BuildError: EFFKERNELS_CUDA=1 and the CUDA module could not be built, or a setting is no setting.
        """
        self.target.mkdir(parents=True, exist_ok=True)
        cuda_reason = self._build_cuda()
        if cuda_reason is not None and self.mode == "1":
            raise BuildError(f"EFFKERNELS_CUDA=1, but the CUDA module cannot be built: {cuda_reason}")
        # In this order in the record, and None for `_C` until its own build says otherwise.
        self.record.modules = {CPU_MODULE: None, CUDA_MODULE: cuda_reason}
        self.record.modules[CPU_MODULE] = self._build_cpu()
        (self.target / FILE_NAME).write_text(self.record.as_json())
        return self.record

    def _build_cpu(self) -> str | None:
        pybind11 = find_pybind11(self.torch)
        needs = (self.compiler, self.ninja, self.python, pybind11)
        if (reason := _first_missing(*needs)) is not None:
            return self._drop(CPU_MODULE, reason)
        compiler, ninja, python, pybind11 = needs
        assert isinstance(compiler, Compiler) and isinstance(python, Path) and isinstance(pybind11, Path)
        assert isinstance(ninja, str)
        header_folder = self.work / "generated"
        header_folder.mkdir(parents=True, exist_ok=True)
        (header_folder / "build_record.h").write_text(self.record.as_header())
        return self._compile(cpu_module(ROOT, compiler, python, pybind11, header_folder), ninja)

    def _build_cuda(self) -> str | None:
        if self.mode == "0":
            return self._drop(CUDA_MODULE, "switched off with EFFKERNELS_CUDA=0")
        nvcc = find_nvcc(self.env)
        reason = _first_missing(self.compiler, self.ninja, self.python) or why_not(self.torch, nvcc)
        if reason is not None:
            return self._drop(CUDA_MODULE, reason)
        assert isinstance(nvcc, Nvcc) and isinstance(self.torch, Torch) and isinstance(self.compiler, Compiler)
        assert isinstance(self.ninja, str) and isinstance(self.python, Path)
        archs = arch_list(self.env, nvcc.version)
        module = cuda_module(ROOT, self.compiler, nvcc, self.torch, self.python, archs)
        failure = self._compile(module, self.ninja)
        if failure is None:
            self.record.cuda, self.record.cuda_archs = nvcc.version_text, archs
        return failure

    def _compile(self, module: Module, ninja: str) -> str | None:
        """None when `module` lies in the target folder, else why it does not; the log goes to stderr."""
        output = self.target / FILE_NAMES[module.name]
        try:
            log = ninja_build.build(module, ROOT, self.work / module.name, output, ninja, self.jobs)
        except CompileError as error:
            print(f"\n*** effkernels.{module.name} failed to compile ***\n{error.log}", file=sys.stderr, flush=True)
            return self._drop(module.name, f"compilation failed: {error}")
        print(log, end="", flush=True)
        return None

    def _drop(self, name: str, reason: str) -> str:
        """Remove what an earlier build left: a module that was not built must not be installed."""
        (self.target / FILE_NAMES[name]).unlink(missing_ok=True)
        return reason


def _first_missing(*tools: object) -> str | None:
    return next((tool.reason for tool in tools if isinstance(tool, Missing)), None)


class BuildModules(build_ext):
    """`build_ext` with our own compile step; setuptools' is of no use to nvcc."""

    def run(self) -> None:
        source = ROOT / "effkernels"
        target = source if self.inplace else Path(self.build_lib) / "effkernels"
        try:
            record = Builder(target.resolve(), Path(self.build_temp).resolve(), os.environ).build()
        except BuildError as error:
            raise SetupError(str(error)) from error
        print(record.summary(), flush=True)

    def get_outputs(self) -> list[str]:
        return [str(Path(self.build_lib) / "effkernels" / name) for name in (*FILE_NAMES.values(), FILE_NAME)]

    def get_output_mapping(self) -> dict[str, str]:
        return {}
