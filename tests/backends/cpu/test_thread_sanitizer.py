"""The kernels on plain threads under ThreadSanitizer; see thread_sanitizer.cpp."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cpu_kernels import usable_instruction_sets
from effkernels_build import ninja_build
from effkernels_build.modules import cpu_module
from effkernels_build.ninja_build import CompileError
from effkernels_build.toolchain import Compiler, Torch, find_compiler, find_ninja
from source_tree import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver and the kernels, compiled as for the package."""
    compiler, ninja = find_compiler(os.environ), find_ninja(os.environ)
    if not isinstance(compiler, Compiler) or not isinstance(ninja, str):
        pytest.skip("no C++ compiler or no ninja")
    folder = tmp_path_factory.mktemp("thread_sanitizer")
    trial = subprocess.run(
        [*compiler.command, "-fsanitize=thread", "-x", "c++", "-", "-o", str(folder / "trial")],
        input="int main() {}",
        capture_output=True,
        text=True,
        check=False,
    )
    if trial.returncode != 0:
        pytest.skip(f"{compiler.version} has no ThreadSanitizer: {trial.stderr}")
    nowhere = folder / "no torch"
    module = cpu_module(
        ROOT, compiler, Torch("none", None, nowhere), nowhere, nowhere, nowhere, ("thread",)
    )
    kernels = [(p, isa) for p, isa in module.sources if p.is_relative_to(ROOT / "csrc" / "cpu")]
    assert len(kernels) > 20
    how = module.languages["cpp"]
    driver = replace(how, flags=(*how.flags, "-fsanitize=thread", "-O1", "-g1"))
    alone = replace(
        module,
        languages={**module.languages, "driver": driver},
        sources=((Path(__file__).with_name("thread_sanitizer.cpp"), "driver"), *kernels),
        link=(*compiler.command, "-fsanitize=thread", "-pthread"),
        link_flags=(),
    )
    try:
        ninja_build.build(alone, ROOT, folder, folder / "thread_sanitizer", ninja, None)
    except CompileError as error:
        pytest.fail(error.log)
    return folder / "thread_sanitizer"


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Without address randomisation, which older sanitizers do not support, and without other
    # sanitizers.
    setarch = shutil.which("setarch")
    prefix = [setarch, platform.machine(), "-R"] if setarch else []
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [*prefix, str(program), *arguments],
        env=env | {"TSAN_OPTIONS": "halt_on_error=0 exitcode=66"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    if "unexpected memory mapping" in done.stderr or "personality" in done.stderr:
        pytest.skip(f"ThreadSanitizer does not run here: {done.stderr}")
    return done


def test_races_are_found(program: Path) -> None:
    done = run(program, "race")
    assert done.returncode == 66, done.stdout + done.stderr
    assert "WARNING: ThreadSanitizer: data race" in done.stderr


def test_kernels_do_not_race_and_do_not_depend_on_threads(program: Path) -> None:
    done = run(program)
    assert "ThreadSanitizer" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    ran = [line.split(":")[0] for line in lines]
    usable = usable_instruction_sets()
    # Of those that share their code, a build with sanitizers has one.
    with_code = [name for name in usable if name in ("baseline", "avx512", "neon")]
    twin = ["tile_twin"] if {"avx2", "tile_twin"} & set(usable) else []
    assert ran == twin + with_code
    assert last == "ok"
