"""Find the C++ compiler, ninja, pybind11's headers and the torch to build against.

Each finder returns what it found, or a `Missing` with a reason that is shown to the user.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import runpy
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class BuildError(Exception):
    """The build cannot go on; the message is one line for the user."""


class MissingToolError(Exception):
    """A module cannot be built here; the message is the reason."""


@dataclass(frozen=True)
class Missing:
    """A tool that was not found, and why."""

    reason: str


def require(tool: T | Missing) -> T:
    """`tool` itself.

    Raises:
        MissingToolError: it is missing.
    """
    if isinstance(tool, Missing):
        raise MissingToolError(tool.reason)
    return tool


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler that runs: its command line and the first line of its `--version`."""

    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Torch:
    """An installed torch, read from its files. It is not imported, so no CUDA library is loaded."""

    version: str
    cuda: str | None
    root: Path

    @property
    def release(self) -> tuple[int, ...]:
        """Major and minor number."""
        return tuple(int(number) for number in self.version.split(".")[:2])

    @property
    def include(self) -> Path:
        return self.root / "include"

    @property
    def lib(self) -> Path:
        return self.root / "lib"


def run(command: Sequence[str], timeout: float = 60.0) -> tuple[int, str]:
    """Exit status and output (stdout and stderr) of `command`; (127, why) if it cannot start."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode(errors="replace")


def find_compiler(env: Mapping[str, str]) -> Compiler | Missing:
    """The C++ compiler: the one that `CXX` names if it is set, else c++, g++ or clang++."""
    if os.name == "nt":
        return Missing("compiled modules are not built on Windows")
    chosen = env.get("CXX", "").strip()
    candidates = [shlex.split(chosen)] if chosen else [["c++"], ["g++"], ["clang++"]]
    for command in candidates:
        program = shutil.which(command[0], path=env.get("PATH"))
        if program is None:
            continue
        status, output = run([program, *command[1:], "--version"])
        if status == 0:
            first_line = output.strip().splitlines()[0] if output.strip() else program
            return Compiler((program, *command[1:]), first_line)
    if chosen:
        return Missing(f"no C++ compiler: CXX={chosen} does not run")
    return Missing("no C++ compiler: none of c++, g++, clang++ on the PATH, and CXX is not set")


def find_ninja(env: Mapping[str, str]) -> str | Missing:
    """The ninja program: from the `ninja` package of this Python, else from the PATH."""
    try:
        folder = Path(importlib.import_module("ninja").BIN_DIR)
    except (ImportError, AttributeError, OSError):
        folder = None
    if folder is not None and (folder / "ninja").is_file():
        return str(folder / "ninja")
    on_path = shutil.which("ninja", path=env.get("PATH"))
    return on_path if on_path else Missing("ninja is not installed (pip install ninja)")


def find_torch() -> Torch | Missing:
    """The torch that this Python imports; if there is none, its environment's, which isolated builds do not see."""
    spec = importlib.util.find_spec("torch")
    hidden = Path(sysconfig.get_path("purelib")) / "torch"
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
    elif (hidden / "version.py").is_file():
        root = hidden
    else:
        return Missing("torch is not installed in the environment that builds")
    try:
        values = runpy.run_path(str(root / "version.py"))
        return Torch(version=str(values["__version__"]), cuda=values["cuda"], root=root)
    except (OSError, KeyError) as error:
        return Missing(f"torch at {root} cannot be read: {error}")


def find_python_headers() -> Path | Missing:
    """The folder of Python.h."""
    include = Path(sysconfig.get_path("include"))
    if (include / "Python.h").is_file():
        return include
    return Missing(f"no Python.h in {include} (install Python's development files)")


def find_pybind11(torch: Torch | Missing) -> Path | Missing:
    """The folder of pybind11's headers: the package's own, else the copy that torch ships."""
    spec = importlib.util.find_spec("pybind11")
    roots = [Path(spec.origin).parent / "include"] if spec is not None and spec.origin else []
    if isinstance(torch, Torch):
        roots.append(torch.include)
    for root in roots:
        if (root / "pybind11" / "pybind11.h").is_file():
            return root
    return Missing("pybind11 is not installed (pip install pybind11)")


def job_count(env: Mapping[str, str]) -> int | None:
    """`MAX_JOBS` as a number, or None where ninja may choose.

    Raises:
        BuildError: MAX_JOBS is not a positive whole number.
    """
    text = env.get("MAX_JOBS", "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise BuildError(f"MAX_JOBS={text!r}: accepted is a whole number of at least 1")
    return int(text)
