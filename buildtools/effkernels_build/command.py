"""The setuptools command; it alone needs more than the standard library."""

from __future__ import annotations

import os
from pathlib import Path

from setuptools.command.build_ext import build_ext
from setuptools.errors import SetupError

from effkernels_build.builder import ROOT, Builder
from effkernels_build.modules import FILE_NAMES
from effkernels_build.record import FILE_NAME
from effkernels_build.toolchain import BuildError


class BuildModules(build_ext):
    """`build_ext` with our own compile step: setuptools' does not know nvcc."""

    def run(self) -> None:
        target = ROOT / "effkernels" if self.inplace else Path(self.build_lib) / "effkernels"
        work = Path(self.build_temp).resolve()
        try:
            record = Builder(target.resolve(), work, os.environ).build()
        except BuildError as error:
            raise SetupError(str(error)) from error
        print(record.summary(), flush=True)

    def get_outputs(self) -> list[str]:
        names = (*FILE_NAMES.values(), FILE_NAME)
        return [str(Path(self.build_lib) / "effkernels" / name) for name in names]

    def get_output_mapping(self) -> dict[str, str]:
        return {}
