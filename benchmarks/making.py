"""Makes the problem of a case, whatever its kind; in a process of its own."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks import layer_problem, network_problem
from benchmarks.cases import Case, NetworkCase
from benchmarks.problem import Problem, checked_images


def make(folder: str, case: Case) -> None:
    """Make the file of a case, unless it is there."""
    problem = Problem(Path(folder), case)
    if problem.exists():
        return
    case.device.set_precision()
    with torch.inference_mode():
        if isinstance(case, NetworkCase):
            inputs, answers = network_problem.make(problem.folder, case)
        else:
            inputs, answers = layer_problem.make(case)
        problem.save(inputs, checked_images(case.batch), answers)
