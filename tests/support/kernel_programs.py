"""Programs of the CPU kernels without torch: a driver in C++ and the kernels, compiled as for the package."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from effkernels_build import ninja_build
from effkernels_build.modules import cpu_module
from effkernels_build.ninja_build import CompileError
from effkernels_build.toolchain import Compiler, Torch, find_ninja
from source_tree import ROOT


def build_program(
    driver: Path,
    compiler: Compiler,
    folder: Path,
    *,
    machine: str | None = None,
    sanitizers: Sequence[str] = (),
    kernel_flags: Sequence[str] = (),
    link_flags: Sequence[str] = (),
) -> Path:
    """Compile ``driver`` and the kernels in ``folder``, which several drivers may share.

    Skips the test without ninja, and fails it if something does not compile.

    Args:
        machine: for which the compiler compiles, as ``platform.machine()`` names it; this one by default.
        kernel_flags: of the kernels, after the package's own.
    """
    ninja = find_ninja(os.environ)
    if not isinstance(ninja, str):
        pytest.skip(ninja.reason)
    nowhere = folder / "no torch"
    module = cpu_module(
        *(ROOT, compiler, Torch("none", None, nowhere), nowhere, nowhere, nowhere, sanitizers),
        machine=machine,
    )
    kernels = [(p, isa) for p, isa in module.sources if p.is_relative_to(ROOT / "csrc" / "cpu")]
    assert len(kernels) > 15
    instrument = [f"-fsanitize={name}" for name in sanitizers]
    languages = {
        name: how if name == "cpp" else replace(how, flags=(*how.flags, *kernel_flags))
        for name, how in module.languages.items()
    }
    # What distributes the work has to be watched, too.
    how = replace(languages["cpp"], flags=(*languages["cpp"].flags, *instrument))
    languages["cpp"] = how
    languages["driver"] = replace(how, flags=(*how.flags, "-O1", "-g1"))
    program = folder / driver.stem
    alone = replace(
        module,
        languages=languages,
        sources=((driver, "driver"), *kernels),
        link=(*compiler.command, *instrument, "-pthread", *link_flags),
        link_flags=(),
    )
    try:
        ninja_build.build(alone, ROOT, folder, program, ninja, None)
    except CompileError as error:
        pytest.fail(error.log)
    return program
