"""Contestants for tests of the harness: they compute a depthwise layer well, wrongly or not at all.

Workers import this file through PYTHONPATH.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.cases import DepthwiseCase
from benchmarks.contestants import Built, Missing
from benchmarks.problem import Problem, depthwise_conv, layer


def right(case: DepthwiseCase, folder: Path, *, factor: float = 1.0) -> Built:
    """The layer's result times ``factor``."""
    run = layer(Problem(folder, case).inputs(), case.activation, depthwise_conv(case))
    return Built(lambda: run() * factor, {"factor": factor})


def absent(case: DepthwiseCase, folder: Path) -> Built:
    """Not on this machine."""
    raise Missing("toys are not installed")


def broken(case: DepthwiseCase, folder: Path) -> Built:
    """Raises while it is built."""
    raise RuntimeError("no such layer")


def dying(case: DepthwiseCase, folder: Path) -> Built:
    """Ends its process while it is built."""
    print("out of toys", flush=True)
    os._exit(7)
