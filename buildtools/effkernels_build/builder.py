"""Build `_C` and `_C_cuda`, each only where it can be built, and keep a record of it."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from effkernels_build import ninja_build
from effkernels_build.cuda import arch_list, cuda_mode, find_nvcc, why_not
from effkernels_build.modules import (
    CPU_MODULE,
    CUDA_MODULE,
    FILE_NAMES,
    cpu_module,
    cuda_module,
    network_layout_header,
)
from effkernels_build.ninja_build import CompileError, Module
from effkernels_build.record import FILE_NAME, BuildRecord
from effkernels_build.toolchain import (
    BuildError,
    Compiler,
    Missing,
    MissingToolError,
    Torch,
    find_compiler,
    find_ninja,
    find_pybind11,
    find_python_headers,
    find_torch,
    job_count,
    require,
)

ROOT = Path(__file__).resolve().parents[2]


class Builder:
    """Builds the modules into the package folder `target`, objects in `work`; keeps the record.

    Raises:
        BuildError: an environment variable of the build has a value that is not accepted.
    """

    def __init__(self, target: Path, work: Path, env: Mapping[str, str]) -> None:
        self.target, self.work, self.env = target, work, env
        self.mode = cuda_mode(env)
        self.jobs = job_count(env)
        self.torch: Torch | Missing = find_torch()
        self.compiler: Compiler | Missing = find_compiler(env)
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
            BuildError: EFFKERNELS_CUDA=1 and the CUDA module could not be built.
        """
        self.target.mkdir(parents=True, exist_ok=True)
        cuda_reason = self._attempt(CUDA_MODULE, self._build_cuda)
        if cuda_reason is not None and self.mode == "1":
            raise BuildError(f"EFFKERNELS_CUDA=1, but {CUDA_MODULE} cannot be built: {cuda_reason}")
        # The record is compiled into `_C`, so it lists `_C` as built.
        self.record.modules = {CPU_MODULE: None, CUDA_MODULE: cuda_reason}
        self.record.modules[CPU_MODULE] = self._attempt(CPU_MODULE, self._build_cpu)
        (self.target / FILE_NAME).write_text(self.record.as_json())
        return self.record

    def _attempt(self, name: str, build: Callable[[], None]) -> str | None:
        """None if `build` succeeded, else the reason; compile errors go to stderr."""
        try:
            build()
            return None
        except MissingToolError as missing:
            reason = str(missing)
        except CompileError as error:
            print(f"\n*** effkernels.{name} does not compile ***\n{error.log}", file=sys.stderr)
            reason = f"compilation failed: {error}"
        # A module left by an earlier build must not be installed.
        (self.target / FILE_NAMES[name]).unlink(missing_ok=True)
        return reason

    def _build_cpu(self) -> None:
        compiler = require(self.compiler)
        python, torch = require(find_python_headers()), self._linked_torch()
        pybind11 = require(find_pybind11(self.torch))
        version = zlib.crc32((pybind11 / "pybind11" / "detail" / "common.h").read_bytes())
        pybind11 = self._link(f"pybind11-{version:08x}", pybind11)
        header_folder = self._generated()
        (header_folder / "build_record.h").write_text(self.record.as_header())
        sanitizers = self.env.get("EFFKERNELS_SANITIZE", "").replace(",", " ").split()
        self._compile(
            cpu_module(ROOT, compiler, torch, python, pybind11, header_folder, sanitizers)
        )

    def _link(self, name: str, folder: Path) -> Path:
        """A link to `folder` in the work folder, to be named in commands instead of it.

        Build isolation installs the same packages into another folder each time; ninja would compile again whatever
        names it. `name` says which release it is.
        """
        link = self.work / "links" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(folder, target_is_directory=True)
        return link

    def _linked_torch(self) -> Torch:
        torch = require(self.torch)
        return replace(torch, root=self._link(f"torch-{torch.version}", torch.root))

    def _generated(self) -> Path:
        """The folder of generated headers, with network_layout.h in it."""
        folder = self.work / "generated"
        folder.mkdir(parents=True, exist_ok=True)
        # Written only where it changed: a new timestamp would recompile every file that includes
        # it.
        layout, text = folder / "network_layout.h", network_layout_header(ROOT)
        if not layout.exists() or layout.read_text() != text:
            layout.write_text(text)
        return folder

    def _build_cuda(self) -> None:
        if self.mode == "0":
            raise MissingToolError("switched off with EFFKERNELS_CUDA=0")
        found = find_nvcc(self.env)
        reason = why_not(self.torch, found)
        if reason is not None:
            raise MissingToolError(reason)
        nvcc, torch, compiler = require(found), self._linked_torch(), require(self.compiler)
        archs = arch_list(self.env, nvcc.version)
        python, generated = require(find_python_headers()), self._generated()
        self._compile(cuda_module(ROOT, compiler, nvcc, torch, python, generated, archs))
        self.record.cuda, self.record.cuda_archs = nvcc.version_text, archs

    def _compile(self, module: Module) -> None:
        output = self.target / FILE_NAMES[module.name]
        ninja = require(find_ninja(self.env))
        work = self.work / module.name
        ninja_build.build(module, ROOT, work, output, ninja, self.jobs, _show)


def _show(line: str) -> None:
    print(line, end="", flush=True)
