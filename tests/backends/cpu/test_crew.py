"""Crews of threads, without torch and without kernels: see crew.cpp."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from effkernels_build.toolchain import Compiler, find_compiler
from source_tree import ROOT


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells where a thread may run")
def test_late_threads_hold_up_nobody_and_are_woken_elsewhere(tmp_path: Path) -> None:
    compiler = find_compiler(os.environ)
    if not isinstance(compiler, Compiler):
        pytest.skip(compiler.reason)
    runtime = ROOT / "csrc" / "cpu" / "runtime"
    sources = [
        Path(__file__).with_name("crew.cpp"),
        runtime / "crew.cpp",
        runtime / "placement.cpp",
    ]
    program = tmp_path / "crew"
    flags = ("-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{ROOT / 'csrc'}")
    subprocess.run([*compiler.command, *flags, *sources, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "ok\n"
