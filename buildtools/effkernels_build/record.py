"""The record of a build: what was built, with which tools, and why the rest was not."""

from __future__ import annotations

import json
import platform
import sysconfig
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from effkernels_build.modules import CPU_MODULE, CUDA_MODULE, CXX_STANDARD

FILE_NAME = "_build_info.json"


@dataclass
class BuildRecord:
    """The outcome of a build. `modules` maps each module to None if it was built, else to the
    reason why not.
    """

    modules: dict[str, str | None]
    torch: str | None
    torch_cuda: str | None
    compiler: str | None
    cuda: str | None
    cuda_archs: list[str] = field(default_factory=list)
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=sysconfig.get_platform)
    cxx_standard: int = CXX_STANDARD

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    def as_header(self) -> str:
        """The record as a C++ header, for `_C.build_info()`."""
        return f'#pragma once\n\nconstexpr char kBuildRecord[] = R"json({self.as_json()})json";\n'

    def summary(self) -> str:
        """One line: what was built, and why the rest was not."""
        built_with: Mapping[str, str] = {
            CPU_MODULE: f"{self.compiler}",
            CUDA_MODULE: f"nvcc {self.cuda} for {' '.join(self.cuda_archs)}, torch {self.torch}",
        }
        built = [
            f"{name} ({built_with[name]})"
            for name, reason in self.modules.items()
            if reason is None
        ]
        missing = [
            f"no {name}: {reason}" for name, reason in self.modules.items() if reason is not None
        ]
        return "effkernels: " + "; ".join(
            ["built " + (", ".join(built) or "no compiled module"), *missing]
        )
