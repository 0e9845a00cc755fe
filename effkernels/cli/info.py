"""``effkernels info``: what is installed and available here; or the sizes and costs of a model."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict
from itertools import groupby
from typing import Any

from rich.console import Console

import effkernels
from effkernels._backends.compiled import build_info, compiled_status
from effkernels.analysis.cost import LayerCost, ModelCost, model_cost
from effkernels.analysis.memory import inference_memory, training_memory
from effkernels.cli.options import (
    check_at_least_1,
    choose_device,
    torch_dtype,
)
from effkernels.cli.output import (
    billions,
    console,
    facts,
    megabytes,
    number_table,
    print_json,
    print_wide,
    printable,
    short,
)
from effkernels.models.registry import get_config

_EXECUTIONS = ("eager", "level1", "level2")
_PACKAGES = ("torch", "triton", "numpy", "pillow", "safetensors", "huggingface_hub")


def info(
    *, model: str | None, resolution: int | None, batch_size: int, dtype: str, as_json: bool
) -> None:
    """Print the installation, or the costs of ``model``; see ``effkernels info --help``."""
    if model is not None:
        _model_info(model, resolution, batch_size, dtype, as_json)
        return
    if resolution is not None:
        raise ValueError("--resolution needs a model: effkernels info MODEL --resolution N")
    document = installation()
    if as_json:
        print_json(document)
    else:
        _print_installation(console(), document)


def installation() -> dict[str, Any]:
    """Versions, the default device, backends and reasons, compiled modules, build, models."""
    device, why = choose_device(None)
    return {
        "versions": {
            "effkernels": effkernels.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
            "platform": platform.platform(),
        },
        "package": effkernels.__path__[0],
        "device": {"default": str(device), "reason": why},
        "backends": {name: asdict(status) for name, status in effkernels.backends().items()},
        "compiled": dict(compiled_status()),
        "build": build_info(),
        "models": effkernels.list_models(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _print_installation(out: Console, document: dict[str, Any]) -> None:
    versions = {name: version or "not installed" for name, version in document["versions"].items()}
    device = document["device"]
    out.print(
        facts(
            {
                **versions,
                "package": document["package"],
                "device": f"{device['default']} ({device['reason']})",
            }
        )
    )
    _heading(out, "Backends, fastest first")
    instructions = _instructions(document["build"].get("instruction_sets"))
    out.print(
        facts(
            {
                name: _status(status, instructions if name == "cpu" else "")
                for name, status in document["backends"].items()
            }
        )
    )
    _heading(out, "Compiled modules")
    out.print(facts({name: reason or "loaded" for name, reason in document["compiled"].items()}))
    _heading(out, "Build")
    if document["build"]:
        out.print(facts({name: _flat(value) for name, value in document["build"].items()}))
    else:
        out.print("no record: nothing was built in this source tree")
    _heading(out, "Models")
    out.print(printable(", ".join(document["models"])))


def _heading(out: Console, text: str) -> None:
    out.print(f"\n{text}", style="bold underline")


def _status(status: dict[str, Any], instructions: str) -> str:
    if not status["available"]:
        return f"not available: {status['reason']}"
    ops = ", ".join(status["ops"]) if status["ops"] else "every op"
    return f"available{instructions}: {ops}"


def _instructions(sets: dict[str, Any] | None) -> str:
    """Which of its instruction sets the cpu backend uses, if it is loaded."""
    if sets is None:
        return ""
    return f", with {sets['in_use']} instructions (of {', '.join(sets['kernels'])})"


def _flat(value: object) -> str:
    """A value of the build record in one line."""
    if isinstance(value, dict):
        return "; ".join(f"{k}: {'built' if v is None else _flat(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _model_info(
    name: str, resolution: int | None, batch_size: int, dtype: str, as_json: bool
) -> None:
    check_at_least_1("--batch-size", batch_size)
    config = get_config(name)
    cost = model_cost(config, resolution, batch_size=batch_size, dtype=torch_dtype(dtype))
    if as_json:
        print_json(_model_document(cost))
        return
    out = console()
    height, width = cost.resolution
    scale = config.coefficients
    moved, memory = cost.bytes_moved, inference_memory(cost)
    pictures = "1 picture" if batch_size == 1 else f"{batch_size} pictures"
    out.print(
        facts(
            {
                "model": f"{name}: width {scale.width:g}, depth {scale.depth:g}, made for "
                f"{scale.resolution} x {scale.resolution} pixels",
                "layers": f"{config.activation}, {config.padding} padding, BatchNorm eps "
                f"{config.bn_eps:g} and momentum {config.bn_momentum:g}, dropout "
                f"{config.dropout:g}, drop path {config.drop_path:g}",
                "below for": f"{pictures} of {height} x {width} pixels, {dtype}",
                "parameters": f"{cost.params:,}",
                "MACs": f"{cost.macs:,} ({billions(cost.flops)} FLOPs, counting multiply and add)",
                "activations": f"{cost.activations:,} elements",
                "bytes moved": f"{megabytes(moved.eager)} eager, {megabytes(moved.level1)} with "
                f"level-1 and {megabytes(moved.level2)} with level-2 kernels",
                "inference": f"{megabytes(memory.eager)} peak, weights included (estimate)",
                "training": f"{megabytes(training_memory(cost))} with two optimizer states a "
                f"parameter (estimate)",
            }
        )
    )
    out.print()
    grid = number_table(
        ["layer", "kernel"], ["output", "blocks", "params", "MACs", "eager", "level 1", "level 2"]
    )
    for row in stage_rows(cost):
        grid.add_row(
            row["name"],
            row["kernel"],
            "x".join(map(str, row["out_shape"])),
            str(row["blocks"] or ""),
            f"{row['params'] / 1e6:.3f}M",
            f"{short(row['macs'] / 1e6)}M",
            *(short(row[f"bytes_{execution}"] / 1e6) for execution in _EXECUTIONS),
        )
    print_wide(grid)
    out.print("\neager, level 1, level 2: feature maps read and written, in MB")


def _model_document(cost: ModelCost) -> dict[str, Any]:
    config = get_config(cost.name)
    return {
        "model": cost.name,
        "config": asdict(config),
        "resolution": cost.resolution,
        "batch_size": cost.batch_size,
        "dtype": str(cost.dtype).removeprefix("torch."),
        "params": cost.params,
        "macs": cost.macs,
        "flops": cost.flops,
        "activations": cost.activations,
        "bytes_moved": asdict(cost.bytes_moved),
        "inference_memory": asdict(inference_memory(cost)),
        "training_memory": training_memory(cost),
        "rows": stage_rows(cost),
    }


def stage_rows(cost: ModelCost) -> list[dict[str, Any]]:
    """The cost of stem, each stage, head and classifier; shapes are (C, H, W) of one image.

    ``kernel`` is that of the first convolution, or pool, that has one of more than 1x1.
    """
    rows = []
    for name, group in groupby(cost.layers, key=_row_name):
        layers = list(group)
        spatial = [layer for layer in layers if layer.kernel_size > 1]
        blocks = {layer.name.rpartition(".")[0] for layer in layers} - {""}
        rows.append(
            {
                "name": name,
                "kernel": f"{spatial[0].kernel_size}x{spatial[0].kernel_size}/{spatial[0].stride}"
                if spatial
                else "1x1",
                "in_shape": layers[0].in_shape,
                "out_shape": layers[-1].out_shape,
                "blocks": len(blocks),
                "params": sum(layer.params for layer in layers),
                "macs": sum(layer.macs for layer in layers),
                **{
                    f"bytes_{execution}": sum(
                        getattr(layer.bytes_moved, execution) for layer in layers
                    )
                    for execution in _EXECUTIONS
                },
            }
        )
    return rows


def _row_name(layer: LayerCost) -> str:
    """``stages.2`` for ``stages.2.0.depthwise``; other layers keep their name."""
    return ".".join(layer.name.split(".")[:2])
