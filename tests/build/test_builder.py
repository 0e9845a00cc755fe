"""The compiler, the switches and the outcome of a build, without compiling kernels."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from effkernels_build import builder as builder_module
from effkernels_build import ninja_build
from effkernels_build.builder import Builder
from effkernels_build.cuda import Nvcc, gencode_flags
from effkernels_build.modules import (
    SOME_ARCHS,
    cpu_module,
    cuda_kernels,
    cuda_module,
    instruction_sets,
    runs_here,
    understood,
)
from effkernels_build.ninja_build import CompileError, Language, Module, first_error, ninja_text
from effkernels_build.record import FILE_NAME, BuildRecord
from effkernels_build.toolchain import (
    BuildError,
    Compiler,
    Missing,
    Torch,
    find_compiler,
    find_ninja,
    find_pybind11,
    find_torch,
    job_count,
)
from source_tree import ROOT


def compiler_and_ninja() -> tuple[str, str]:
    ninja = find_ninja({"PATH": "/usr/bin:/usr/local/bin"})
    compiler = find_compiler({"PATH": "/usr/bin:/usr/local/bin"})
    if not isinstance(ninja, str) or not isinstance(compiler, Compiler):
        pytest.skip("no ninja or no compiler")
    return compiler.command[0], ninja


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
        sources = ((root / "a b.cpp", "cpp"), (root / "a b.cpp", "wide"))
        languages = {"cpp": language, "wide": replace(language, flags=("-DWIDE",))}
        return Module("m", sources, languages, (compiler, "-shared"), ("-lz",))

    def test_text_quotes_for_ninja_and_for_the_shell(self, tmp_path: Path) -> None:
        objects = [tmp_path / "a b.o", tmp_path / "a b wide.o"]
        text = ninja_text(self.module(tmp_path, "c++"), objects, tmp_path, tmp_path / "m.so")
        assert "command = c++ '-DA=$$x y' -MMD -MF $out.d -c $in -o $out" in text
        assert "command = c++ -DWIDE -MMD -MF $out.d -c $in -o $out" in text
        assert "a$ b.o: compile_cpp" in text
        assert "a$ b$ wide.o: compile_wide" in text
        assert "command = c++ -shared $in -o $out -lz" in text

    def test_failure_carries_the_log(self, tmp_path: Path) -> None:
        command, ninja = compiler_and_ninja()
        (tmp_path / "a b.cpp").write_text("int f() { return nothing_of_this_name; }\n")
        module = self.module(tmp_path, command)
        with pytest.raises(CompileError, match="nothing_of_this_name") as caught:
            ninja_build.build(module, tmp_path, tmp_path / "o", tmp_path / "m.so", ninja, 1)
        assert "FAILED" in caught.value.log
        assert not Path(".ninja_log").exists()

    def test_a_source_in_two_languages_gives_two_objects(self, tmp_path: Path) -> None:
        command, ninja = compiler_and_ninja()
        (tmp_path / "a b.cpp").write_text("extern const int kWide;\nconst int kWide = WIDE;\n")
        language = Language((command,), (), ("-MMD", "-MF"))
        languages = {
            name: replace(language, flags=(f"-DWIDE={value}", f"-DkWide={name}"))
            for name, value in (("narrow", 1), ("wide", 2))
        }
        sources = tuple((tmp_path / "a b.cpp", name) for name in languages)
        module = Module("m", sources, languages, (command, "-shared"), ())
        output = tmp_path / "m.so"
        ninja_build.build(module, tmp_path, tmp_path / "o", output, ninja, 1)
        library = ctypes.CDLL(str(output))
        found = {name: ctypes.c_int.in_dll(library, name).value for name in languages}
        assert found == {"narrow": 1, "wide": 2}

    def test_a_header_that_every_source_begins_with(self, tmp_path: Path) -> None:
        """It is compiled once: what it says then is what the sources see, until it changes."""
        command, ninja = compiler_and_ninja()
        header, source = tmp_path / "the header.h", tmp_path / "a b.cpp"
        source.write_text('extern "C" { extern const int value; const int value = kValue; }\n')
        language = Language((command,), (f"-I{tmp_path}", "-fPIC"), ("-MD", "-MF"), header.name)
        module = Module("m", ((source, "cpp"),), {"cpp": language}, (command, "-shared"), ())
        folder, shown = tmp_path / "o", list[str]()
        for value in (1, 2):
            header.write_text(f"constexpr int kValue = {value};\n")
            output = tmp_path / f"m{value}.so"
            for times in (1, 0):
                shown.clear()
                ninja_build.build(module, tmp_path, folder, output, ninja, 1, shown.append)
                assert sum("the header.h (cpp)" in line for line in shown) == times
            assert ctypes.c_int.in_dll(ctypes.CDLL(str(output)), "value").value == value
        assert [path.name for path in folder.glob("*.gch")] == ["first_cpp.h.gch"]

    def test_first_error(self) -> None:
        log = "[1/2] c++ x\nFAILED: error.o\nx.cpp:3:1: error: what\nninja: build stopped\n"
        assert first_error(log) == "x.cpp:3:1: error: what"
        fatal = "nvcc fatal   : Unsupported gpu architecture 'compute_990'"
        assert first_error(f"FAILED: [code=1] a.o\nnvcc -Werror a.cu\n{fatal}\n") == fatal
        assert first_error("killed\n") == "killed"
        assert first_error("") == "no output"


class TestKernels:
    """The kernels of csrc/cpu, and the instruction sets for which they are compiled."""

    @pytest.mark.parametrize(
        ("machine", "names"),
        [
            ("x86_64", ["baseline", "avx2", "avx512", "avx512bf16", "amx"]),
            ("AMD64", ["baseline", "avx2", "avx512", "avx512bf16", "amx"]),
            ("aarch64", ["neon"]),
            ("arm64", ["neon"]),
            ("riscv64", ["baseline"]),
        ],
    )
    def test_instruction_sets(self, machine: str, names: list[str]) -> None:
        assert list(instruction_sets(machine)) == names

    def test_each_has_all_of_the_one_before(self) -> None:
        flags = [set(flags) for flags in instruction_sets("x86_64").values()]
        assert flags[0] == set()
        assert all(less < more for less, more in itertools.pairwise(flags))
        assert {"-mavx2", "-mfma", "-mf16c"} <= flags[1]
        assert {"-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"} <= flags[2]
        assert "-mavx512bf16" in flags[3]
        assert "-mamx-bf16" in flags[4]

    @pytest.mark.parametrize(
        ("unknown", "lost"), [("nothing", 0), ("-mamx-bf16", 1), ("-mavx512bf16", 2)]
    )
    def test_without_those_that_an_older_compiler_does_not_know(
        self, unknown: str, lost: int, tmp_path: Path
    ) -> None:
        older = tmp_path / "c++"
        older.write_text(f'#!/bin/sh\nfor word; do [ "$word" != "{unknown}" ] || exit 1; done\n')
        older.chmod(0o755)
        isas = instruction_sets("x86_64")
        found = understood(Compiler((str(older),), "c++ 1"), isas)
        assert list(found) == list(isas)[: len(isas) - lost]
        assert found.items() <= isas.items()

    def test_a_twin_of_the_tiles_with_sanitizers(self) -> None:
        assert "tile_twin" not in self.module().languages
        module = self.module(("address",))
        if "avx2" in understood(self.COMPILER):
            assert "-DEFFKERNELS_TILE_TWIN" in module.languages["tile_twin"].flags
            (isas,) = (flag for flag in module.languages["cpp"].flags if "FOR_EACH_ISA" in flag)
            assert isas.split("=")[1].startswith("f(tile_twin) ")  # never the fastest

    def test_those_that_the_processor_runs(self, tmp_path: Path) -> None:
        isas, cpuinfo = instruction_sets("x86_64"), tmp_path / "cpuinfo"
        assert all(runs_here(flags, cpuinfo) for flags in isas.values())  # there is no such file
        cpuinfo.write_text("flags\t\t: fpu sse2 avx f16c fma avx2\nbugs\t\t: avx512f\n")
        found = [name for name, flags in isas.items() if runs_here(flags, cpuinfo)]
        assert found == ["baseline", "avx2"]
        newest = "avx512f avx512dq avx512bw avx512vl avx512_bf16 amx_bf16 amx_tile"
        cpuinfo.write_text(f"flags : f16c fma avx2 {newest}\n")
        assert all(runs_here(flags, cpuinfo) for flags in isas.values())
        cpuinfo.write_text("Features\t: fp asimd\n")
        assert all(runs_here(flags, cpuinfo) for flags in instruction_sets("arm64").values())

    def test_this_machines_by_default(self) -> None:
        assert instruction_sets() == instruction_sets(platform.machine())

    COMPILER = Compiler(("c++",), "c++ 1")

    def module(self, sanitizers: tuple[str, ...] = (), machine: str | None = None) -> Module:
        nowhere = Path("/nonexistent")
        torch = Torch("2.15.0", None, nowhere)
        return cpu_module(
            *(ROOT, self.COMPILER, torch, nowhere, nowhere, nowhere, sanitizers), machine=machine
        )

    def test_kernels_once_for_each_instruction_set(self) -> None:
        module = self.module()
        compiled: dict[str, list[str]] = {}
        for source, language in module.sources:
            compiled.setdefault(source.name, []).append(language)
            assert language in module.languages
        # The binding first, then the kernel.
        assert compiled["depthwise_conv_bn_act.cpp"] == ["binding", *understood(self.COMPILER)]
        assert compiled["depthwise_row.cpp"] == list(understood(self.COMPILER))
        assert compiled["processor.cpp"] == compiled["instruction_sets.cpp"] == ["cpp"]
        for isa, flags in understood(self.COMPILER).items():
            assert set(flags) < set(module.languages[isa].flags)
            assert f"-DEFFKERNELS_ISA={isa}" in module.languages[isa].flags
            for name in ("binding", "cpp"):
                assert any(f"f({isa})" in flag for flag in module.languages[name].flags)

    @pytest.mark.parametrize("sanitizers", [(), ("address",)])
    @pytest.mark.parametrize("machine", ["aarch64", "arm64"])
    def test_for_arm(self, machine: str, sanitizers: tuple[str, ...]) -> None:
        """Every kernel once. NEON is in every 64-bit Arm processor, and compilers use it without a flag."""
        module = self.module(sanitizers, machine)
        assert set(module.languages) == {"binding", "cpp", "neon"}
        assert "-DEFFKERNELS_FOR_EACH_ISA(f)=f(neon)" in module.languages["cpp"].flags
        for how in module.languages.values():
            assert not [flag for flag in how.flags if flag.startswith("-m")]
        csrc = ROOT / "csrc" / "cpu"
        kernels = sorted([*csrc.glob("*.cpp"), *csrc.glob("isa/*.cpp")])
        assert sorted(path for path, language in module.sources if language == "neon") == kernels
        chosen = sorted(csrc.glob("runtime/*.cpp"))
        assert {(path, "cpp") for path in chosen} < set(module.sources)

    def test_sanitizers_are_in_every_command_but_those_of_bindings(self) -> None:
        plain, module = self.module(), self.module(("address", "undefined"))
        of_kernels = [
            how.flags for n, how in module.languages.items() if n not in ("binding", "cpp")
        ]
        for words in (module.link, *of_kernels):
            assert {"-fsanitize=address", "-fsanitize=undefined"} < set(words)
            assert "-fno-sanitize-recover=all" in words
        assert not any("sanitize" in word for word in module.languages["binding"].flags)
        assert not any("sanitize" in word for word in plain.link)


class TestCudaKernels:
    """The kernels of csrc/cuda, and the architectures that they are compiled for."""

    @staticmethod
    def flags(archs: list[str]) -> dict[str, set[str]]:
        """Of each source, what it is compiled with."""
        nowhere = Path("/nonexistent")
        torch, nvcc = Torch("2.15.0", "13.2", nowhere), Nvcc(nowhere, nowhere, (13, 0))
        module = cuda_module(
            ROOT, Compiler(("c++",), "c++ 1"), nvcc, torch, nowhere, nowhere, archs
        )
        return {
            source.stem: set(module.languages[language].flags)
            for source, language in module.sources
            if source.suffix == ".cu"
        }

    def test_each_for_those_that_it_needs(self) -> None:
        archs = ["8.0", "9.0a", "12.0+PTX"]
        flags = self.flags(archs)
        assert set(SOME_ARCHS) < {source.stem for source in cuda_kernels(ROOT / "csrc")}
        # These take longest.
        assert list(flags)[:2] == ["expand_depthwise_conv_bn_act", "warpgroups"]
        for stem, found in flags.items():
            wanted = gencode_flags(SOME_ARCHS.get(stem, list)(archs))
            assert {flag for flag in found if "gencode" in flag} == set(wanted)
        assert "-gencode=arch=compute_80,code=sm_80" in flags["squeeze_excite"]


class TestBuilder:
    """The builder with fake tools: nothing is compiled."""

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

    def test_no_torch_installs_python_alone(  # type: ignore[no-untyped-def]
        self, builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(builder_module, "find_torch", lambda: Missing("no torch"))
        record = builder({}).build()
        assert record.modules["_C"] == record.modules["_C_cuda"] == "no torch"
        assert self.files(tmp_path) == set()

    def test_commands_do_not_depend_on_where_packages_are(  # type: ignore[no-untyped-def]
        self, builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise the second `pip install` of a checkout would compile as much as the first."""
        compiler_and_ninja()
        found = find_torch(), find_pybind11(find_torch())
        assert isinstance(found[0], Torch)
        assert isinstance(found[1], Path)
        modules: dict[str, list[Module]] = {}
        for name in ("isolated", "isolated again"):
            torch, pybind11 = tmp_path / name / "torch", tmp_path / name / "include"
            torch.parent.mkdir()
            torch.symlink_to(found[0].root)
            pybind11.symlink_to(found[1])
            moved = replace(found[0], root=torch)
            monkeypatch.setattr(builder_module, "find_torch", lambda moved=moved: moved)
            monkeypatch.setattr(builder_module, "find_pybind11", lambda _, at=pybind11: at)
            one = builder({"EFFKERNELS_CUDA": "0", **os.environ})
            built = modules[name] = []
            monkeypatch.setattr(ninja_build, "build", lambda one, *_, to=built: to.append(one))
            one.build()
            (include,) = (tmp_path / "work" / "links").glob("torch-*")
            assert include.readlink() == torch
        assert modules["isolated"] == modules["isolated again"]
        assert modules["isolated"]

    @pytest.mark.parametrize(
        ("text", "sanitizers"),
        [
            (None, []),
            ("", []),
            ("thread", ["thread"]),
            ("address, undefined", ["address", "undefined"]),
        ],
    )
    def test_sanitizers_are_chosen_from_outside(  # type: ignore[no-untyped-def]
        self,
        builder,
        monkeypatch: pytest.MonkeyPatch,
        text: str | None,
        sanitizers: list[str],
    ) -> None:
        compiler_and_ninja()
        given: list[list[str]] = []
        real = builder_module.cpu_module
        monkeypatch.setattr(
            builder_module, "cpu_module", lambda *a: (given.append(list(a[-1])), real(*a))[1]
        )
        chosen = {} if text is None else {"EFFKERNELS_SANITIZE": text}
        builder({"EFFKERNELS_CUDA": "0", "PATH": os.environ["PATH"], **chosen}).build()
        assert given == [sanitizers]

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
        (tmp_path / "pybind11" / "detail").mkdir(parents=True)
        (tmp_path / "pybind11" / "detail" / "common.h").touch()
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
