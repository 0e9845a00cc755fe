"""Benchmarks of effkernels against what users would otherwise run.

``pytest benchmarks/ --benchmark-only`` and ``python -m benchmarks.report``, both from the repository root.

The root holds the package's source without its compiled modules, and ``specs``, which is read here; ``python -m``
puts it first on ``sys.path``, pytest does not put it there. So importing this package puts it at the end:
``import effkernels`` then finds what was installed.

    cases         what is measured: a file for each kind
    contestants   who is measured: a file for each rival
    harness       how a case becomes a row
    report        what is made of rows
    run           the command
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _root_last(path: list[str]) -> list[str]:
    """The same search path with the repository root behind everything else."""
    return [entry for entry in path if Path(entry or ".").resolve() != ROOT] + [str(ROOT)]


sys.path[:] = _root_last(sys.path)
