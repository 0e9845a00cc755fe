"""The time from a fresh interpreter to the first logits: imports, building the model, its first pass.

The model has fresh weights; reading a checkpoint is not included. Caches of compiled code are empty, those of the
file system are not: a first round is not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.cases.networks import NetworkCase
from benchmarks.contestants import Missing

_CHILD = Path(__file__).with_name("startup_child.py")
_PATIENCE = 600


def measure(contestant: str, case: NetworkCase, folder: str) -> dict[str, float]:
    """Seconds of each step of one start.

    Raises:
        Missing: something that the contestant needs is not installed.
        RuntimeError: it failed.
    """
    path = ""
    if contestant == "onnxruntime":
        from benchmarks.contestants.runtimes import exported, import_or_missing

        import_or_missing("onnxruntime")
        path = str(exported(case, Path(folder)))
    device = f"{case.device.kind}-{case.device.type}"
    described = [contestant, case.model, str(case.resolution), str(case.batch), device, path]
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD.read_text(), *described],
            cwd=folder,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": empty, "TRITON_CACHE_DIR": empty},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        if said[0].startswith(("ModuleNotFoundError", "AttributeError")):
            raise Missing(said[0])
        raise RuntimeError(said[0])
    steps: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return steps


def until_logits(steps: dict[str, float]) -> float:
    """The sum of the seconds of all steps up to the first logits."""
    return sum(seconds for name, seconds in steps.items() if name != "second pass")
