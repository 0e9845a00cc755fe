"""The kernels on plain threads under ThreadSanitizer; see thread_sanitizer.cpp."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from cpu_kernels import usable_instruction_sets
from effkernels_build.toolchain import Compiler, find_compiler
from kernel_programs import build_program

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver and the kernels, compiled as for the package."""
    compiler = find_compiler(os.environ)
    if not isinstance(compiler, Compiler):
        pytest.skip(compiler.reason)
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
    driver = Path(__file__).with_name("thread_sanitizer.cpp")
    return build_program(driver, compiler, folder, sanitizers=("thread",))


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
