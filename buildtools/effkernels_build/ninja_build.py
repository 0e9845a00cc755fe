"""Compile sources to objects with ninja and link them into one shared object."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from effkernels_build.toolchain import run

COMPILE_TIMEOUT = 3600.0  # seconds for all of one module


class CompileError(Exception):
    """Compiling or linking failed; `log` holds all that the tools said."""

    def __init__(self, log: str) -> None:
        self.log = log
        super().__init__(first_error(log))


@dataclass(frozen=True)
class Language:
    """How one kind of source is compiled; `depfile_flags` come before the name of a depfile."""

    command: tuple[str, ...]
    flags: tuple[str, ...]
    depfile_flags: tuple[str, ...]


@dataclass(frozen=True)
class Module:
    """A shared object: sources, each with the name of a language, and the command that links.

    A source may appear several times, in different languages.
    """

    name: str
    sources: tuple[tuple[Path, str], ...]
    languages: dict[str, Language]
    link: tuple[str, ...]
    link_flags: tuple[str, ...]


def first_error(log: str) -> str:
    """The first line of a compiler's or linker's output that is an error, else the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = (line for line in lines if re.search(r"\b(error|fatal)\s*:", line))
    return next(errors, lines[-1] if lines else "no output")


def _escape(path: Path | str) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def _command(words: Sequence[str]) -> str:
    """A shell command for a ninja rule; ninja's own $in, $out and $out.d stay as they are."""
    return " ".join(
        word if word.startswith("$") else shlex.quote(word).replace("$", "$$") for word in words
    )


def ninja_text(module: Module, objects: Sequence[Path], folder: Path, output: Path) -> str:
    """The build.ninja that makes `output` from the sources of `module`, working in `folder`."""
    # Ninja keeps its log in builddir, else in the folder that it was started in.
    lines = ["ninja_required_version = 1.5", f"builddir = {_escape(folder)}", ""]
    for name, how in module.languages.items():
        command = _command([*how.command, *how.flags, *how.depfile_flags, "$out.d"])
        lines += [
            f"rule compile_{name}",
            f"  command = {command} -c $in -o $out",
        ]
        lines += ["  depfile = $out.d", "  deps = gcc", ""]
    lines += [
        "rule link",
        f"  command = {_command([*module.link, '$in', '-o', '$out', *module.link_flags])}",
        "",
    ]
    for (source, language), target in zip(module.sources, objects, strict=True):
        lines.append(f"build {_escape(target)}: compile_{language} {_escape(source)}")
    inputs = " ".join(map(_escape, objects))
    lines += [f"build {_escape(output)}: link {inputs}", f"default {_escape(output)}", ""]
    return "\n".join(lines)


def build(
    module: Module, root: Path, folder: Path, output: Path, ninja: str, jobs: int | None
) -> str:
    """Compile and link `module` (sources below `root`) in `folder`; returns the log.

    Raises:
        CompileError: a command failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    objects = [
        folder / source.relative_to(root).with_suffix(f"{source.suffix}.{language}.o")
        for source, language in module.sources
    ]
    script = folder / "build.ninja"
    script.write_text(ninja_text(module, objects, folder, output))
    parallel = [] if jobs is None else ["-j", str(jobs)]
    status, log = run([ninja, "-f", str(script), *parallel], timeout=COMPILE_TIMEOUT)
    if status != 0:
        raise CompileError(log)
    return log
