"""Benchmarks of effkernels against what users would otherwise run.

``pytest benchmarks/ --benchmark-only`` and ``python -m benchmarks.report``, both from the repository root.

The repository root contains the package's source without its compiled modules, and ``specs``, which the
benchmarks read. ``python -m`` puts the root first on ``sys.path``, pytest does not put it there at all. So
importing this package puts it last: ``import effkernels`` then finds the installed package.

        cases         what is measured: one file per kind
        contestants   what is compared: one file per library
        harness       measures a case, which becomes a row
        report        turns rows into tables and plots
        run           the command
        profiles      kernel by kernel on a GPU
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _root_last(path: list[str]) -> list[str]:
    """The same search path, with the repository root at its end."""
    return [entry for entry in path if Path(entry or ".").resolve() != ROOT] + [str(ROOT)]


sys.path[:] = _root_last(sys.path)
