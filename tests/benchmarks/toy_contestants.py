"""Contestants for tests of the harness: they compute a depthwise layer correctly, wrongly or not at
all.

Workers import this file through PYTHONPATH.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.cases.layers import LayerCase
from benchmarks.contestants import Built, Missing
from benchmarks.harness.problem import Problem


def right(case: LayerCase, folder: Path, *, factor: float = 1.0) -> Built:
    """The layer's result times ``factor``."""
    inputs = Problem(folder, case).inputs()
    return Built(lambda: case.shape.eager(**inputs) * factor, {"factor": factor})


def absent(case: LayerCase, folder: Path) -> Built:
    """Is not available on this machine."""
    raise Missing("toys are not installed")


def broken(case: LayerCase, folder: Path) -> Built:
    """Raises while it is built."""
    raise RuntimeError("no such layer")


def dying(case: LayerCase, folder: Path) -> Built:
    """Ends its process while it is built."""
    print("out of toys", flush=True)
    os._exit(7)
