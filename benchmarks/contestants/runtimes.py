"""Runtimes outside PyTorch, at their fastest settings for one request at a time.

All read the same ONNX file, exported from the modules that eager PyTorch runs. Measured on a 2-core Zen 5 with
B0@224: ONNX Runtime is equally fast, within 2 %, with torch's two exporters, with torchvision's modules and ours,
with fixed and free dimensions, and with its arena and memory pattern on or off. Without spinning threads it is 1.4
times slower.
"""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases.networks import NetworkCase
from benchmarks.contestants import Built, Contestant, Missing
from benchmarks.contestants.eager import stock_network
from benchmarks.harness.device import CPU
from benchmarks.harness.problem import Problem

CONTESTANTS = (
    Contestant(
        "onnxruntime",
        "onnxruntime",
        f"{__name__}:onnxruntime",
        cpu=("networks", "low-precision", "growth"),
        place=10,
    ),
    Contestant(
        "openvino",
        "openvino",
        f"{__name__}:openvino",
        cpu=("networks", "low-precision"),
        place=20,
    ),
    Contestant(
        "onnxruntime",
        "onnxruntime",
        "benchmarks.harness.startup:measure",
        cpu=("startup",),
        place=31,
    ),
    Contestant("tensorrt", "tensorrt", f"{__name__}:tensorrt", cuda=("networks",), place=50),
)


def onnxruntime(case: NetworkCase, folder: Path) -> Built:
    """ONNX Runtime's CPU provider, all optimisations, torch's number of threads, which spin during a run."""
    ort = import_or_missing("onnxruntime")
    if case.device.type != "float32":
        raise Missing("ONNX Runtime's CPU provider computes convolutions only in float32")
    path = exported(case, folder)
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    size = {"batch": case.batch, "height": case.resolution, "width": case.resolution}
    for dimension, value in size.items():
        options.add_free_dimension_override_by_name(dimension, value)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: Problem(folder, case).inputs()["images"].numpy()}
    details = {"version": ort.__version__, "threads": options.intra_op_num_threads}
    return Built(lambda: session.run(None, feed)[0], details)


_OPENVINO_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def openvino(case: NetworkCase, folder: Path) -> Built:
    """OpenVINO's CPU plugin with the latency hint; the file is float32, the computation in the type of the case."""
    ov = import_or_missing("openvino")
    core = ov.Core()
    model = core.read_model(str(exported(dataclasses.replace(case, device=CPU), folder)))
    model.reshape([case.batch, 3, case.resolution, case.resolution])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        # By default it would use bfloat16 if the CPU supports it.
        "INFERENCE_PRECISION_HINT": _OPENVINO_TYPES[case.device.type],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    images = Problem(folder, case).inputs()["images"].float().numpy()

    def run() -> Any:
        # A shared view: copying the result would count as the runtime's time.
        return request.infer([images], share_inputs=True, share_outputs=True)[0]

    return Built(run, {"version": ov.__version__, **settings})


def tensorrt(case: NetworkCase, folder: Path) -> Built:
    """TensorRT in the type of the ONNX file, which is the case's; on PyTorch's memory and stream; no CUDA graph."""
    trt = import_or_missing("tensorrt")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    # From version 11 on all networks are strongly typed, and the flag is gone.
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(exported(case, folder))):
        raise RuntimeError(f"TensorRT: {parser.get_error(0).desc()}")
    images = Problem(folder, case).inputs()["images"]
    settings, profile = builder.create_builder_config(), builder.create_optimization_profile()
    if case.device.type != "tf32":
        settings.clear_flag(trt.BuilderFlag.TF32)
    profile.set_shape("images", *[tuple(images.shape)] * 3)  # minimum, optimum and maximum
    settings.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise RuntimeError("TensorRT built no engine")
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    context.set_input_shape("images", tuple(images.shape))
    logits = images.new_empty(tuple(context.get_tensor_shape("logits")))
    for name, tensor in (("images", images), ("logits", logits)):
        context.set_tensor_address(name, tensor.data_ptr())

    def run() -> torch.Tensor:
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT did not run")
        return logits

    # The engine and the images must live as long as `run`.
    run.holds = (engine, images)  # type: ignore[attr-defined]
    return Built(run, {"version": trt.__version__})


def import_or_missing(package: str) -> Any:
    """The package; raises :class:`Missing` with the reason if it does not import."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Missing(f"{package} does not import: {error}".splitlines()[0]) from error


def exported(case: NetworkCase, folder: Path) -> Path:
    """One file per model and type for all sizes, with dimensions named batch, height and width."""
    dtype = case.device.dtype
    path = folder / f"{case.model}-{dtype}.onnx".replace("torch.", "")
    if path.exists():
        return path
    import_or_missing("onnx")
    model, _ = stock_network(case, folder)
    part = path.with_suffix(".part")
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    axes = {0: "batch", 2: "height", 3: "width"}
    images = torch.randn(2, 3, 224, 224, dtype=dtype)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # The exporter that is being replaced takes one second instead of seven, and does not need onnxscript.
        torch.onnx.export(
            model.to(dtype),
            (images,),
            str(part),
            dynamo=False,
            dynamic_axes={"images": axes},
            **names,
        )
    part.rename(path)
    return path
