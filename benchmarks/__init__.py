"""Benchmarks of effkernels against what users would otherwise run.

``pytest benchmarks/ --benchmark-only`` and ``python -m benchmarks.report``, both from the repository root.

The root holds the package's source without its compiled modules, and both commands put it first on
``sys.path``. So importing this package moves it to the end: ``import effkernels`` then finds what was installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _root_last(path: list[str]) -> list[str]:
    """The same search path with the repository root behind everything else."""
    root = [entry for entry in path if Path(entry or ".").resolve() == ROOT]
    return [entry for entry in path if entry not in root] + root[:1]


sys.path[:] = _root_last(sys.path)
