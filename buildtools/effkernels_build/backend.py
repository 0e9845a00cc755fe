"""The build backend that pyproject.toml names: setuptools', which builds for the PyTorch that is installed.

Build isolation hides an environment's packages from the build. If torch were a fixed requirement of the build, pip
would install its newest release for the build alone (5.5 GB with CUDA), whichever release the environment has, and
compile for that one.
"""

from __future__ import annotations

from collections.abc import Mapping

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from effkernels_build.toolchain import Torch, find_torch

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

# Releases of torch that the kernels' bindings are tested with: from the first, before the second.
TESTED = (2, 11), (2, 16)

Settings = Mapping[str, str | list[str] | None] | None


def torch_requirements() -> list[str]:
    """What must be installed for the build: nothing, if the environment has a torch of a tested release."""
    found = find_torch()
    oldest, untested = TESTED
    if isinstance(found, Torch) and oldest <= found.release < untested:
        return []
    return [f"torch>={oldest[0]}.{oldest[1]},<{untested[0]}.{untested[1]}"]


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return [*build_meta.get_requires_for_build_wheel(config_settings), *torch_requirements()]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return [*build_meta.get_requires_for_build_editable(config_settings), *torch_requirements()]
