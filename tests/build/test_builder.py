"""The compiler, the switches and the outcome of a build, without compiling anything real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from effkernels_build import builder as builder_module
from effkernels_build import ninja_build
from effkernels_build.builder import Builder
from effkernels_build.cuda import Nvcc
from effkernels_build.ninja_build import CompileError, Language, Module, first_error, ninja_text
from effkernels_build.record import FILE_NAME, BuildRecord
from effkernels_build.toolchain import (
    BuildError,
    Compiler,
    Missing,
    Torch,
    find_compiler,
    find_ninja,
    find_torch,
    job_count,
)


class TestToolchain:
    def test_chosen_compiler_is_not_replaced(self) -> None:
        found = find_compiler({"CXX": "/nonexistent", "PATH": "/usr/bin:/bin"})
        assert found == Missing("no C++ compiler: CXX=/nonexistent does not run")

    def test_compiler_with_arguments(self, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        cache.write_text('#!/bin/sh\nshift; echo "wrapped $*"\n')
        cache.chmod(0o755)
        found = find_compiler({"CXX": f"{cache} g++ -m64", "PATH": "/usr/bin:/bin"})
        assert found == Compiler((str(cache), "g++", "-m64"), "wrapped -m64 --version")

    def test_no_compiler(self, tmp_path: Path) -> None:
        found = find_compiler({"PATH": str(tmp_path)})
        assert isinstance(found, Missing)
        assert "none of c++, g++, clang++ on the PATH" in found.reason

    def test_torch_is_this_one(self) -> None:
        import torch

        found = find_torch()
        assert not isinstance(found, Missing)
        assert (found.version, found.cuda) == (torch.__version__, torch.version.cuda)
        assert (found.include / "torch" / "csrc" / "stable" / "library.h").is_file()

    @pytest.mark.parametrize(("text", "jobs"), [(None, None), ("", None), ("1", 1), (" 12 ", 12)])
    def test_jobs(self, text: str | None, jobs: int | None) -> None:
        assert job_count({} if text is None else {"MAX_JOBS": text}) == jobs

    @pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
    def test_bad_jobs(self, text: str) -> None:
        with pytest.raises(BuildError, match="MAX_JOBS="):
            job_count({"MAX_JOBS": text})


class TestNinja:
    @staticmethod
    def module(root: Path, compiler: str) -> Module:
        language = Language((compiler,), ("-DA=$x y",), ("-MMD", "-MF"))
        return Module("m", (root / "a b.cpp",), {".cpp": language}, (compiler, "-shared"), ("-lz",))

    def test_text_quotes_for_ninja_and_for_the_shell(self, tmp_path: Path) -> None:
        text = ninja_text(
            self.module(tmp_path, "c++"), [tmp_path / "a b.o"], tmp_path, tmp_path / "m.so"
        )
        assert "command = c++ '-DA=$$x y' -MMD -MF $out.d -c $in -o $out" in text
        assert "a$ b.o: compile_cpp" in text
        assert "command = c++ -shared $in -o $out -lz" in text

    def test_failure_carries_the_log(self, tmp_path: Path) -> None:
        ninja = find_ninja({"PATH": "/usr/bin:/usr/local/bin"})
        compiler = find_compiler({"PATH": "/usr/bin:/usr/local/bin"})
        if not isinstance(ninja, str) or not isinstance(compiler, Compiler):
            pytest.skip("no ninja or no compiler")
        (tmp_path / "a b.cpp").write_text("int f() { return nothing_of_this_name; }\n")
        module = self.module(tmp_path, compiler.command[0])
        with pytest.raises(CompileError, match="nothing_of_this_name") as caught:
            ninja_build.build(module, tmp_path, tmp_path / "o", tmp_path / "m.so", ninja, 1)
        assert "FAILED" in caught.value.log
        assert not Path(".ninja_log").exists()

    def test_first_error(self) -> None:
        log = "[1/2] c++ x\nFAILED: error.o\nx.cpp:3:1: error: what\nninja: build stopped\n"
        assert first_error(log) == "x.cpp:3:1: error: what"
        fatal = "nvcc fatal   : Unsupported gpu architecture 'compute_990'"
        assert first_error(f"FAILED: [code=1] a.o\nnvcc -Werror a.cu\n{fatal}\n") == fatal
        assert first_error("killed\n") == "killed"
        assert first_error("") == "no output"


class TestBuilder:
    """The builder in a process of its own tools: none of them compiles."""

    @pytest.fixture
    def builder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
        def make(env: dict[str, str], failing: str = "") -> Builder:
            def build(module: Module, *arguments: object) -> str:
                if module.name == failing:
                    raise CompileError("a.cu:1: error: no such thing\n")
                output = arguments[2]
                assert isinstance(output, Path)
                output.write_text("built")
                return ""

            monkeypatch.setattr(ninja_build, "build", build)
            return Builder(tmp_path / "package", tmp_path / "work", env)

        return make

    @staticmethod
    def files(tmp_path: Path) -> set[str]:
        return {path.name.split(".")[0] for path in (tmp_path / "package").glob("*.so")}

    def test_no_compiler_installs_python_alone(self, builder, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        (tmp_path / "package").mkdir()
        (tmp_path / "package" / "_C_cuda.abi3.so").write_text("of an earlier build")
        record = builder({"CXX": "/nonexistent", "EFFKERNELS_CUDA": "0"}).build()
        assert record.modules["_C"] == "no C++ compiler: CXX=/nonexistent does not run"
        assert record.modules["_C_cuda"] == "switched off with EFFKERNELS_CUDA=0"
        assert self.files(tmp_path) == set()
        written = json.loads((tmp_path / "package" / FILE_NAME).read_text())
        assert written["modules"] == record.modules

    def test_forced_and_impossible(self, builder, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        env = {"EFFKERNELS_CUDA": "1", "CUDA_HOME": str(tmp_path)}
        with pytest.raises(BuildError, match=r"EFFKERNELS_CUDA=1, but _C_cuda cannot be built: "):
            builder(env).build()

    def test_bad_switch_stops_before_anything_is_built(self, builder) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(BuildError, match="EFFKERNELS_CUDA='maybe'"):
            builder({"EFFKERNELS_CUDA": "maybe"})

    @pytest.mark.parametrize("failing", ["_C", "_C_cuda"])
    def test_compile_error(  # type: ignore[no-untyped-def]
        self, builder, failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
    ) -> None:
        torch = Torch("2.15.0", "13.2", tmp_path)
        monkeypatch.setattr(builder_module, "find_torch", lambda: torch)
        monkeypatch.setattr(
            builder_module, "find_nvcc", lambda env: Nvcc(tmp_path, tmp_path, (13, 0))
        )
        for finder in ("find_compiler", "find_ninja", "find_python_headers", "find_pybind11"):
            found = Compiler(("c++",), "c++ 1") if finder == "find_compiler" else tmp_path
            monkeypatch.setattr(builder_module, finder, lambda *_, found=found: found)
        record = builder({}, failing).build()
        assert record.modules[failing] == "compilation failed: a.cu:1: error: no such thing"
        assert f"*** effkernels.{failing} does not compile ***" in capsys.readouterr().err
        assert self.files(tmp_path) == {"_C", "_C_cuda"} - {failing}
        if failing == "_C_cuda":
            with pytest.raises(BuildError, match="no such thing"):
                builder({"EFFKERNELS_CUDA": "1"}, failing).build()


class TestSummary:
    @staticmethod
    def record(**modules: str | None) -> BuildRecord:
        return BuildRecord(modules, "2.15.0", "13.2", "g++ 12", "13.0", ["9.0", "12.0+PTX"])

    def test_all(self) -> None:
        assert self.record(_C=None, _C_cuda=None).summary() == (
            "effkernels: built _C (g++ 12), _C_cuda (nvcc 13.0 for 9.0 12.0+PTX, torch 2.15.0)"
        )

    def test_some(self) -> None:
        summary = self.record(_C=None, _C_cuda="no nvcc").summary()
        assert summary == "effkernels: built _C (g++ 12); no _C_cuda: no nvcc"

    def test_none(self) -> None:
        summary = self.record(_C="no compiler", _C_cuda="no nvcc").summary()
        assert summary == (
            "effkernels: built no compiled module; no _C: no compiler; no _C_cuda: no nvcc"
        )

    def test_json_survives_the_header(self) -> None:
        record = self.record(_C=None, _C_cuda='a "quoted" \\ reason')
        text = record.as_header().split('R"json(')[1].split(')json"')[0]
        assert json.loads(text)["modules"] == record.modules


def test_ninja_is_found() -> None:
    found = find_ninja({"PATH": "/usr/bin:/usr/local/bin"})
    assert isinstance(found, Missing) or shutil.which(found) == found
