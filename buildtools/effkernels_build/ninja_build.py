"""Compile sources to objects with ninja and link them into one shared object."""

from __future__ import annotations

import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

COMPILE_TIMEOUT = 3600.0  # seconds for all of one module


class CompileError(Exception):
    """Compiling or linking failed; `log` is the full output of the tools."""

    def __init__(self, log: str) -> None:
        self.log = log
        super().__init__(first_error(log))


@dataclass(frozen=True)
class Language:
    """How one kind of source is compiled.

    Attributes:
        depfile_flags: are followed by the depfile's name.
        header: as in an #include; every source begins with it, and it is compiled once.
    """

    command: tuple[str, ...]
    flags: tuple[str, ...]
    depfile_flags: tuple[str, ...]
    header: str | None = None


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


def _header_file(folder: Path, language: str) -> Path:
    """Includes the language's header; GCC and clang look for what it was compiled to beside it."""
    return folder / f"first_{language}.h"


def _precompiled(header: Path) -> Path:
    return header.with_suffix(".h.gch")


def _compile_rule(name: str, command: Sequence[str]) -> list[str]:
    return [
        f"rule {name}",
        f"  command = {_command(command)} -c $in -o $out",
        "  description = $what",
        "  depfile = $out.d",
        "  deps = gcc",
        "",
    ]


def ninja_text(module: Module, objects: Sequence[Path], folder: Path, output: Path) -> str:
    """The build.ninja that makes `output` from the sources of `module`, working in `folder`."""
    # Ninja keeps its log in builddir; without one, in the folder where it was started.
    lines = ["ninja_required_version = 1.5", f"builddir = {_escape(folder)}", ""]
    used = {language for _, language in module.sources}
    for name, how in module.languages.items():
        command = [*how.command, *how.flags, *how.depfile_flags, "$out.d"]
        if how.header is not None and name in used:
            header = _header_file(folder, name)
            lines += _compile_rule(f"header_{name}", [*command, "-x", "c++-header"])
            lines += [
                f"build {_escape(_precompiled(header))}: header_{name} {_escape(header)}",
                f"  what = {module.name}: {how.header} ({name})",
                "",
            ]
            command += ["-include", str(header)]
        lines += _compile_rule(f"compile_{name}", command)
    lines += [
        "rule link",
        f"  command = {_command([*module.link, '$in', '-o', '$out', *module.link_flags])}",
        "  description = $what",
        "",
    ]
    for (source, language), target in zip(module.sources, objects, strict=True):
        what = f"{module.name}: {source.parent.name}/{source.name} ({language})"
        needs = ""
        if module.languages[language].header is not None:
            needs = f" | {_escape(_precompiled(_header_file(folder, language)))}"
        lines += [
            f"build {_escape(target)}: compile_{language} {_escape(source)}{needs}",
            f"  what = {what.replace('$', '$$')}",
        ]
    inputs = " ".join(map(_escape, objects))
    lines += [
        f"build {_escape(output)}: link {inputs}",
        f"  what = {module.name}: link",
        f"default {_escape(output)}",
        "",
    ]
    return "\n".join(lines)


def build(
    module: Module,
    root: Path,
    folder: Path,
    output: Path,
    ninja: str,
    jobs: int | None,
    progress: Callable[[str], object] = lambda line: None,
) -> None:
    """Compile and link `module` (sources below `root`) in `folder`.

    Args:
        progress: called with each line of output as soon as ninja or a tool prints it.

    Raises:
        CompileError: a command failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    objects = [
        folder / source.relative_to(root).with_suffix(f"{source.suffix}.{language}.o")
        for source, language in module.sources
    ]
    for name, how in module.languages.items():
        if how.header is not None:
            _write_if_new(_header_file(folder, name), f'#include "{how.header}"\n')
    script = folder / "build.ninja"
    script.write_text(ninja_text(module, objects, folder, output))
    parallel = [] if jobs is None else ["-j", str(jobs)]
    _run([ninja, "-f", str(script), *parallel], progress)


def _write_if_new(file: Path, text: str) -> None:
    """Ninja compiles again what depends on a file that was written."""
    if not file.exists() or file.read_text() != text:
        file.write_text(text)


def _run(command: Sequence[str], progress: Callable[[str], object]) -> None:
    lines: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        # A tool that hangs prints nothing, so only another thread can end the wait for its next
        # line.
        watchdog = threading.Timer(COMPILE_TIMEOUT, process.kill)
        watchdog.daemon = True
        watchdog.start()
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            progress(line)
        status = process.wait()
        watchdog.cancel()
    if status != 0:
        raise CompileError("".join(lines))
