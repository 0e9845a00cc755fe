"""The Triton kernels in Triton's interpreter; see tests/backends/triton/worker.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

import effkernels
from parity import Arguments, Results
from source_tree import ROOT
from workers import WorkerProcess

_WORKER = ROOT / "tests" / "backends" / "triton" / "worker.py"


class Interpreter:
    """Runs in a separate process, because TRITON_INTERPRET must be set before Triton is imported."""

    def __init__(self, folder: Path) -> None:
        package = str(Path(effkernels.__file__).parent.parent)
        # The root comes last: it contains the package without its compiled modules.
        path = ":".join((package, str(ROOT / "tests" / "support"), str(ROOT)))
        environment = {"TRITON_INTERPRET": "1", "PYTHONPATH": path}
        self.worker = WorkerProcess(_WORKER, folder, environment)

    def __call__(self, name: str, arguments: Arguments) -> Results:
        results: Results = self.worker.call("op", name, dict(arguments))
        return results

    def private(self, name: str, flat: tuple[Any, ...]) -> Results:
        results: Results = self.worker.call("private", name, flat)
        return results

    def network(self, model: nn.Module, x: Tensor) -> tuple[Tensor, list[str]]:
        found: tuple[Tensor, list[str]] = self.worker.call("network", model, x)
        return found


class Candidate(Interpreter):
    """The same with one of the configurations that tuning chooses from, the one at index ``place``."""

    def __init__(self, interpreter: Interpreter, place: int) -> None:
        self.worker, self._place = interpreter.worker, place

    def __call__(self, name: str, arguments: Arguments) -> Results:
        results: Results = self.worker.call("candidate", self._place, name, dict(arguments))
        return results
