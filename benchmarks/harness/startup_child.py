"""The first steps of a user's program; run as text by a fresh interpreter that has imported nothing.

Arguments: contestant, model, resolution, batch, device, type, ONNX file. Prints the seconds of each step as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any


class _Steps:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        self.seconds[name] = time.perf_counter() - start
        return result


def _library(name: str) -> Any:
    import importlib

    return importlib.import_module(name)


def _pytorch(step: _Steps, contestant: str, model: str, size: list[int], device: str) -> None:
    torch = step("import torch", lambda: _library("torch"))
    package = "effkernels" if contestant == "effkernels" else "torchvision.models"
    library = step(f"import {package}", lambda: _library(package))
    kind, dtype = device.split("-")
    dtype = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    built = step("model", lambda: getattr(library, model)().eval().to(kind, dtype))
    if contestant == "torch.compile":
        built = torch.compile(built, dynamic=False)
    images = torch.rand(size, device=kind, dtype=dtype)
    with torch.inference_mode():
        step("first pass", lambda: built(images).cpu())
        step("second pass", lambda: built(images).cpu())


def _onnxruntime(step: _Steps, size: list[int], path: str) -> None:
    import numpy

    ort = step("import onnxruntime", lambda: _library("onnxruntime"))
    session = step(
        "session", lambda: ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    )
    feed = {session.get_inputs()[0].name: numpy.ones(size, numpy.float32)}
    step("first pass", lambda: session.run(None, feed))
    step("second pass", lambda: session.run(None, feed))


def _main(contestant: str, model: str, resolution: str, batch: str, device: str, path: str) -> None:
    step, size = _Steps(), [int(batch), 3, int(resolution), int(resolution)]
    if contestant == "onnxruntime":
        _onnxruntime(step, size, path)
    else:
        _pytorch(step, contestant, model, size, device)
    print(json.dumps(step.seconds))


if __name__ == "__main__":
    _main(*sys.argv[1:])
