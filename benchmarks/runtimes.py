"""Runtimes outside PyTorch, at their fastest settings for one request at a time in float32.

Both read the same ONNX file, of the modules that eager PyTorch runs. Measured on a 2-core Zen 5 with B0@224:
torch's two exporters, torchvision's modules and ours, fixed and free dimensions all give ONNX Runtime the same
speed within 2 %; so do its arena and memory pattern. Without spinning threads it is 1.4 times slower.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import NetworkCase
from benchmarks.contestants import Built, Missing
from benchmarks.networks import stock_network
from benchmarks.problem import Problem


def onnxruntime(case: NetworkCase, folder: Path) -> Built:
    """ONNX Runtime's CPU provider, every optimisation, torch's number of threads, which spin within a run."""
    ort = _import("onnxruntime")
    exported = _exported(case, folder)
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    size = {"batch": case.batch, "height": case.resolution, "width": case.resolution}
    for dimension, value in size.items():
        options.add_free_dimension_override_by_name(dimension, value)
    session = ort.InferenceSession(str(exported), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: Problem(folder, case).inputs()["images"].numpy()}
    details = {"version": ort.__version__, "threads": options.intra_op_num_threads}
    return Built(lambda: session.run(None, feed)[0], details)


def openvino(case: NetworkCase, folder: Path) -> Built:
    """OpenVINO's CPU plugin, latency hint; float32, where its default would be bfloat16 if the CPU has it."""
    ov = _import("openvino")
    core = ov.Core()
    model = core.read_model(str(_exported(case, folder)))
    model.reshape([case.batch, 3, case.resolution, case.resolution])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    images = Problem(folder, case).inputs()["images"].numpy()

    def run() -> Any:
        # A shared view: a copy of the result would be charged to the runtime.
        return request.infer([images], share_inputs=True, share_outputs=True)[0]

    return Built(run, {"version": ov.__version__, **settings})


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Missing(f"{package} does not import: {error}".splitlines()[0]) from error


def _exported(case: NetworkCase, folder: Path) -> Path:
    """One file for a model at every size, with dimensions named batch, height and width."""
    path = folder / f"{case.model}.onnx"
    if path.exists():
        return path
    _import("onnx")
    model, _ = stock_network(case, folder)
    part = path.with_suffix(".part")
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    axes = {0: "batch", 2: "height", 3: "width"}
    images = torch.randn(2, 3, 224, 224)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # The exporter that is being replaced: a second instead of seven, and no onnxscript.
        torch.onnx.export(
            model, (images,), str(part), dynamo=False, dynamic_axes={"images": axes}, **names
        )
    part.rename(path)
    return path
