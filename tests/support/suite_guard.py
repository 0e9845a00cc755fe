"""Is this the right copy of effkernels, with the right compiled modules? Else green proves nothing.

The repository root holds the package's source, so anything started with that folder on `sys.path`
imports it without what was built. And a build that silently left a module out would let the tests
of the fallback pass for it. Environment variables state what a run must have had:

    EFFKERNELS_TEST_COPY      a folder with a copy of the package, built otherwise, to test instead of the
                              installed one: PYTHONPATH must name it too
    EFFKERNELS_TEST_EXPECT    the compiled modules that must be loaded, no more: "_C,_C_cuda", ""
    EFFKERNELS_TEST_MINIMUM   how many tests must have passed
    EFFKERNELS_TEST_ORACLES   "required": a test skipped for want of a package fails
    EFFKERNELS_TEST_SEED      the seed of an earlier run, to repeat it
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution
from pathlib import Path
from urllib.parse import unquote, urlparse


def installed_package(distributions: Iterable[Distribution]) -> Path | None:
    """The package folder that pip installed, the source if editable; None if it installed none.

    Args:
        distributions: those of the name, also the `.egg-info` that a build leaves in a source tree.
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
        imported: the folder of the package.
        installed: where pip installed it, None if nowhere.
        env: the environment; EFFKERNELS_TEST_COPY there stands for `installed`.
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
        status: the reason of each compiled module, None where it is loaded.
        env: the environment; without EFFKERNELS_TEST_EXPECT, a compiler means that `_C` must be.
        compiler: a C++ compiler of this machine, None without.
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
    """Whether this skip is for want of a package, where every oracle is required."""
    required = env.get("EFFKERNELS_TEST_ORACLES") == "required"
    return required and ("could not import" in skip or "does not import" in skip)


def first_problem(problems: Iterable[str | None]) -> str | None:
    """The first of these that is a problem."""
    return next((problem for problem in problems if problem is not None), None)
