"""Makes the problem of a case of any kind; runs in a process of its own."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.cases import Case
from benchmarks.harness.problem import Problem, checked_images


def make(folder: str, case: Case) -> None:
    """Make the file of a case, unless it exists."""
    problem = Problem(Path(folder), case)
    if problem.exists():
        return
    case.device.set_precision()
    with torch.inference_mode():
        inputs, answers = case.make(problem.folder)
        problem.save(inputs, checked_images(case.batch), answers)
