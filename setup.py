"""Builds the compiled modules; everything else about the package is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import Extension, setup

# Build front ends do not put the folder of setup.py on sys.path. Appended, so that it hides no
# other module.
sys.path.append(str(Path(__file__).resolve().parent / "buildtools"))

from effkernels_build.command import BuildModules

setup(
    license="Apache-2.0",
    # Sources and flags are in effkernels_build.modules; declared here so that build_ext runs and
    # wheels are named for this platform.
    ext_modules=[Extension(f"effkernels.{name}", sources=[]) for name in ("_C", "_C_cuda")],
    cmdclass={"build_ext": BuildModules},
)
