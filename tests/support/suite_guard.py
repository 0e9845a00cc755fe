"""Checks that the suite tests the right copy of effkernels, with the right compiled modules.

The repository root contains the package's source, so anything started with that folder on `sys.path`
imports it without the compiled modules. And if a build silently left a module out, the tests of the
fallback would pass in its place. Environment variables state what a run needs:

        EFFKERNELS_TEST_COPY      a folder with another build of the package, to be tested instead of the
        installed
                                  one: PYTHONPATH must name it too
        EFFKERNELS_TEST_EMULATOR  "required": a test that is skipped because the cross-compiler or the emulator for
                                  Arm is missing fails
        EFFKERNELS_TEST_EXPECT    exactly the compiled modules that must be loaded: "_C,_C_cuda", ""
        EFFKERNELS_TEST_MINIMUM   how many tests must pass
        EFFKERNELS_TEST_ORACLES   "required": a test that is skipped because a package is missing fails
        EFFKERNELS_TEST_SEED      the seed of an earlier run, to repeat it
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

NO_EMULATOR = "for Arm, which is not installed"
"""In the reason of a test that is skipped for lack of a tool."""


def installed_package(distributions: Iterable[Distribution]) -> Path | None:
    """The package folder that pip installed (the source if editable); None if it installed none.

    Args:
        distributions: those with the package's name, including the `.egg-info` that a build leaves in a
            source tree.
    """
    distribution = next((one for one in distributions if one.read_text("RECORD")), None)
    if distribution is None:
        return None
    direct_url = json.loads(distribution.read_text("direct_url.json") or "{}")
    if direct_url.get("dir_info", {}).get("editable"):
        return Path(unquote(urlparse(direct_url["url"]).path)) / "effkernels"
    return Path(str(distribution.locate_file("effkernels")))


def wrong_copy(imported: Path, installed: Path | None, env: Mapping[str, str]) -> str | None:
    """Why the imported package folder is not the one to test; None if it is.

    Args:
        imported: the folder of the imported package.
        installed: where pip installed it; None if it did not.
        env: the environment; its EFFKERNELS_TEST_COPY takes the place of `installed`.
    """
    copy = env.get("EFFKERNELS_TEST_COPY")
    if copy:
        if imported.resolve() == Path(copy).resolve() / "effkernels":
            return None
        return (
            f"effkernels was imported from {imported}, but EFFKERNELS_TEST_COPY={copy}:"
            f" set PYTHONPATH={copy}"
        )
    if installed is None:
        return f"effkernels is not installed, but was imported from {imported}: pip install . first"
    if imported.resolve() != installed.resolve():
        return (
            f"effkernels was imported from {imported}, but the installed one is {installed}:"
            " run pytest, not python -m pytest, and clear PYTHONPATH"
        )
    return None


def wrong_modules(
    status: Mapping[str, str | None], env: Mapping[str, str], compiler: str | None
) -> str | None:
    """Why these compiled modules are not the ones to test; None if they are.

    Args:
        status: for each compiled module the reason why it is not loaded, or None.
        env: the environment; without EFFKERNELS_TEST_EXPECT, `_C` must be loaded if there is a compiler.
        compiler: a C++ compiler of this machine, or None.
    """
    expected = env.get("EFFKERNELS_TEST_EXPECT")
    if expected is None:
        if status["_C"] is not None and compiler is not None:
            return (
                f"effkernels._C is not loaded ({status['_C']}), although there is {compiler}:"
                " install again"
            )
        return None
    names = {name.strip() for name in expected.split(",") if name.strip()}
    unknown = names - set(status)
    if unknown:
        return f"EFFKERNELS_TEST_EXPECT={expected}: the compiled modules are {', '.join(status)}"
    wrong = [
        f"{name} is not loaded: {reason}"
        if name in names
        else f"{name} is loaded, but not expected"
        for name, reason in status.items()
        if (reason is None) != (name in names)
    ]
    return f"EFFKERNELS_TEST_EXPECT={expected}: {'; '.join(wrong)}" if wrong else None


def too_few(passed: int, env: Mapping[str, str]) -> str | None:
    """Why this number of passed tests is too small; None if it is not."""
    minimum = int(env.get("EFFKERNELS_TEST_MINIMUM") or 0)
    if passed >= minimum:
        return None
    return f"{passed} tests passed, but EFFKERNELS_TEST_MINIMUM={minimum}"


def absent_oracle(skip: str, env: Mapping[str, str]) -> bool:
    """Whether a test was skipped because a package is missing although every oracle is required."""
    required = env.get("EFFKERNELS_TEST_ORACLES") == "required"
    return required and ("could not import" in skip or "does not import" in skip)


def absent_emulator(skip: str, env: Mapping[str, str]) -> bool:
    """Whether a test was skipped because the cross-compiler or the emulator is missing although they are required."""
    return env.get("EFFKERNELS_TEST_EMULATOR") == "required" and NO_EMULATOR in skip


def first_problem(problems: Iterable[str | None]) -> str | None:
    """The first problem that is not None, or None."""
    return next((problem for problem in problems if problem is not None), None)
