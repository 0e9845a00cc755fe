"""``effkernels demo``: classify the sample pictures, and time the fused network against PyTorch."""

from __future__ import annotations

import os
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
    choose_device,
    torch_dtype,
)
from effkernels.cli.output import console, facts, print_json, ranking
from effkernels.data import SAMPLE_PICTURES, sample_pictures
from effkernels.dispatch import backends, use_backend
from effkernels.models import EfficientNet
from effkernels.timing import in_turns, quartiles

_TOPK = 5
_WARM_UP = 2
_MOST_REPEATS, _FEWEST_REPEATS = 25, 5
# If the upper quartile of the ratios exceeds the lower one by more than this factor, something else was running.
_WIDEST = 1.25
_SECONDS = 5.0  # timing takes about this long, unless the minimum number of repeats takes longer


@dataclass(frozen=True)
class Comparison:
    """The fused network compared with the eager one, on the same pictures.

    Times are milliseconds: medians of ``repeats`` forward passes of ``pictures`` pictures, taken alternately.
    ``ratios``: eager time over fused time within each turn: lower quartile, median, upper quartile.
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
    ratios: tuple[float, float, float]

    @property
    def speedup(self) -> float | None:
        """How many times as fast the fused network is; None if the turns disagree too much."""
        low, middle, high = self.ratios
        return middle if high <= _WIDEST * low else None


def demo(
    *,
    model: str,
    weights: str,
    source: str | None,
    use_ema: bool | None,
    device: str | None,
    dtype: str,
    as_json: bool,
) -> None:
    """Print the rankings of the sample pictures, and the comparison; see ``effkernels demo --help``."""
    where, why = choose_device(device)
    network = load_model(model, weights, source, where, torch_dtype(dtype), use_ema=use_ema)
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
                "dtype": dtype,
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
                "model": f"{model}, weights {weights}, {size} x {size} pixels, {dtype}",
                "device": f"{where} ({why})",
                "backend": f"{comparison.backend} ({_why_backend(comparison.backend, where)})",
            }
        ),
    )
    out.print()
    _print_rankings(out, rankings)
    _print_comparison(out, comparison)


def kernel_backends(device: torch.device) -> list[str]:
    """The backends with kernels for this device, fastest first; empty if there is only torch."""
    if os.environ.get("EFFKERNELS_BACKEND", "").strip().lower() == "torch":
        return []
    # The cpu backend computes on the CPU, all others on CUDA devices.
    return [
        status.name
        for status in backends().values()
        if status.available and status.ops and (status.name == "cpu") == (device.type == "cpu")
    ]


def compare(model: EfficientNet, batch: Tensor) -> Comparison:
    """Time ``model`` fused and eager on a batch, and compare the logits.

    Eager is the torch backend: each op in PyTorch's own operators. Fused is what runs by default.
    If that is the torch backend too, fused is ``model.fuse()``, with BatchNorm folded into the weights.
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
    times = in_turns(
        (run_fused, run_eager),
        seconds=_SECONDS,
        fewest=_FEWEST_REPEATS,
        most=_MOST_REPEATS,
        warm_up=_WARM_UP,
    )
    return Comparison(
        backend=" and ".join(found) or "torch",
        fused=described,
        eager="the model as loaded, PyTorch operators",
        fused_ms=median(fused_ms for fused_ms, _ in times),
        eager_ms=median(eager_ms for _, eager_ms in times),
        max_difference=(fused - eager).abs().max().item(),
        largest_logit=eager.abs().max().item(),
        pictures=len(batch),
        repeats=len(times),
        ratios=quartiles([eager_ms / fused_ms for fused_ms, eager_ms in times]),
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


def _why_backend(backend: str, device: torch.device) -> str:
    if backend == "cpu":
        sets: Any = build_info()["instruction_sets"]
        return f"the fastest available on cpu, with {sets['in_use']} instructions"
    if backend != "torch":
        return f"the fastest available on {device.type}"
    if kernel_backends(device) == [] and os.environ.get("EFFKERNELS_BACKEND"):
        return "EFFKERNELS_BACKEND names it"
    absent: dict[str, list[str]] = {}
    for status in backends().values():
        if status.reason is not None:
            absent.setdefault(status.reason, []).append(status.name)
    reasons = [f"{', '.join(names)}: {reason}" for reason, names in absent.items()]
    return "; ".join(["PyTorch's own operators", *reasons])


def _print_rankings(out: Console, rankings: list[list[Ranked]]) -> None:
    for name, top in zip(SAMPLE_PICTURES, rankings, strict=True):
        out.print(name, style="bold")
        out.print(ranking(top, out))


def _ratio(result: Comparison) -> str:
    low, _, high = result.ratios
    if result.speedup is None:
        return f"not clear: {low:.2f}x to {high:.2f}x in the middle half of the turns; is the machine busy?"
    return f"{result.speedup:.2f}x  ({low:.2f}x to {high:.2f}x in the middle half of the turns)"


def _print_comparison(out: Console, result: Comparison) -> None:
    out.print(
        facts(
            {
                "eager": f"{result.eager_ms:.2f} ms  {result.eager}",
                "fused": f"{result.fused_ms:.2f} ms  {result.fused}",
                "speedup": _ratio(result),
                "turns": f"median of {result.repeats} forward passes of {result.pictures} pictures each",
                "difference": f"at most {result.max_difference:.1e} between the logits, the "
                f"largest of which is {result.largest_logit:.2f}",
            }
        )
    )
    if result.backend == "torch":
        out.print(
            "\nBoth ran on the torch backend, without kernels of this package: only "
            "folding BatchNorm is compared.",
            style="yellow",
        )
