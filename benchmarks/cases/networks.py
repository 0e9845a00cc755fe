"""Whole networks, with weights that all contestants share, and their float64 logits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import effkernels
from benchmarks.cases import Scope, Suite
from benchmarks.harness.alternate import Timing
from benchmarks.harness.device import CPU, Device
from benchmarks.harness.problem import KEPT_IMAGES, SEED, Answer, Problem, Tensors, checked
from effkernels.analysis import cost
from effkernels.models import get_config
from specs.work import Work

B0, B2, B4, B5, B7, LITE0 = (
    f"efficientnet_{name}" for name in ("b0", "b2", "b4", "b5", "b7", "lite0")
)
GPU_BATCH = 128
TIMING = Timing(turn=0.1, budget=12.0)


@dataclass(frozen=True)
class NetworkCase:
    """A whole network on ``batch`` images of ``resolution`` x ``resolution`` pixels."""

    model: str
    resolution: int
    batch: int = 1
    device: Device = CPU

    @property
    def key(self) -> str:
        """Unique among all cases, and usable as a file name."""
        return f"{self.model}-{self.resolution}px-batch{self.batch}{self.device.suffix}"

    @property
    def title(self) -> str:
        """For people."""
        named = self.device.kind == "cpu" and self.device != CPU
        type_ = f", {self.device.title}" if named else ""
        return f"{short_name(self.model)}@{self.resolution}, batch {self.batch}{type_}"

    @property
    def work(self) -> Work:
        """The feature maps of level 2 (expand and depthwise in one kernel) and the weights, once each."""
        total = cost.model_cost(
            self.model, self.resolution, batch_size=self.batch, dtype=self.device.dtype
        )
        return Work(total.bytes_moved.level2 + total.state_bytes, total.macs)

    @property
    def clock(self) -> str:
        """Measures the whole run."""
        return self.device.kind

    def described(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)

    def make(self, folder: Path) -> tuple[Tensors, dict[str, Answer]]:
        """Random images, and the logits of the checked ones."""
        return _make(folder, self)


def short_name(model: str) -> str:
    """``efficientnet_b0`` as B0."""
    return model.removeprefix("efficientnet_").capitalize()


def case(
    model: str, *, batch: int = 1, resolution: int | None = None, device: Device = CPU
) -> NetworkCase:
    """A network at its own resolution, or at the given one."""
    return NetworkCase(model, resolution or get_config(model).resolution, batch, device)


def suites(scope: Scope) -> list[Suite]:
    """The networks; on a CPU in float32 and in 16 bits, which are the default on a GPU."""
    cases = tuple(case(model, batch=batch, device=scope.device) for model, batch in _sizes(scope))
    found = [
        Suite("networks", "Networks", cases, scope.contestants("networks"), TIMING, "networks")
    ]
    if scope.device == CPU:
        halves = (case(B0, device=Device("cpu", "bfloat16")),)
        contestants = scope.contestants("low-precision")
        heading = "Networks in 16 bits"
        found.append(
            Suite("low-precision", heading, halves, contestants, TIMING, "networks", place=10)
        )
    return found


def _sizes(scope: Scope) -> list[tuple[str, int]]:
    """Models and batches."""
    if scope.on_cpu:
        sizes = [(B0, 1), (B4, 1), (LITE0, 1), (B0, 16)]
        return sizes + [(B2, 1), (B5, 1), (B7, 1), (B4, 16)] * scope.full
    sizes = [(B0, 1), (B4, 1), (B0, GPU_BATCH), (B4, GPU_BATCH)]
    sizes += [(B2, 1), (B5, 1), (B7, 1), (LITE0, 1)] * scope.full
    large = [(B2, GPU_BATCH), (B5, GPU_BATCH), (B7, 64), (LITE0, GPU_BATCH)]
    return sizes + large * scope.full


def images(case: NetworkCase, folder: Path, *, channels_last: bool) -> Tensor:
    """All images of the batch, in the given layout."""
    batch: Tensor = Problem(folder, case).inputs()["images"]
    return batch.contiguous(memory_format=torch.channels_last) if channels_last else batch


def network(folder: Path, case: NetworkCase) -> effkernels.EfficientNet:
    """The case's network in eval mode, with the weights that all contestants share."""
    path = folder / f"weights-{case.model}.pt"
    model = effkernels.create_model(case.model)
    if path.exists():
        model.load_state_dict(torch.load(path))
    else:
        model.load_state_dict(_calibrated(case.model))
        torch.save(model.state_dict(), path)
    return model.eval().requires_grad_(False)


def _calibrated(name: str) -> Tensors:
    """Random weights, with BatchNorm statistics measured on random images of the network's own size.

    With default statistics, activations shrink from layer to layer, until rounding and the speed of some
    instructions differ from those of a trained network; with the statistics of other images they grow.
    """
    torch.manual_seed(SEED)
    model = effkernels.create_model(name, dropout=0.0, drop_path=0.0)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
    side = model.config.resolution
    with torch.no_grad(), effkernels.use_backend("torch"):
        model(torch.randn(4, 3, side, side))
    for norm in norms:
        variance = norm.running_var
        assert variance is not None
        # A channel that hardly varies over these images would be scaled up too much for others.
        variance.clamp_(min=variance.mean().item())
    return model.state_dict()


def _make(folder: Path, case: NetworkCase) -> tuple[Tensors, dict[str, Answer]]:
    model = network(folder, case)
    torch.manual_seed(SEED + 1)
    batch = torch.randn(min(case.batch, KEPT_IMAGES), 3, case.resolution, case.resolution)
    some = checked({"images": batch}, case)["images"]
    model = case.device.put(model)
    with effkernels.use_backend("torch"):
        eager = module_by_module(model)(some)
        exact = model.double()
        features = exact.forward_head(exact.forward_features(some.double()), pre_logits=True)
    classifier = exact.classifier
    assert isinstance(classifier, nn.Linear)
    magnitude = (features.abs() @ classifier.weight.abs().T).max().item()
    logits = classifier(features)
    return {"images": batch}, {"result": Answer(logits, eager, magnitude, classifier.in_features)}


def module_by_module(model: nn.Module) -> nn.Module:
    """The same model with hooks, which make its layers run unfused, as ordinary modules."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            module.register_forward_hook(lambda *_: None)
    return model
