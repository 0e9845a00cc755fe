"""The same inputs, weights and float64 answer for every contestant of a case, made once and kept in files.

Runs in a process of its own, which is asleep while anything is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import effkernels
from benchmarks.cases import Case, DepthwiseCase, NetworkCase, PointwiseCase

SEED = 20190528
KEPT_IMAGES = 4
_EPS = 1e-3

Tensors = dict[str, Tensor]
_BATCHED = ("images", "x", "gate", "residual")


class Problem:
    """One case's file: ``inputs``, by name, and for each result its exact value and the error allowed.

    A batch repeats its first few images, which are all that is kept; results are those of the images
    ``checked`` alone: float64 is slow. The kinds of result are "result" and, for a 1x1 convolution, "product":
    the bare matrix product.
    """

    def __init__(self, folder: Path, case: Case) -> None:
        self.folder = folder
        self.case = case
        self.path = folder / f"{case.key}.pt"

    def exists(self) -> bool:
        """Whether it has been made."""
        return self.path.exists()

    def save(self, inputs: Tensors, checked: list[int], answers: dict[str, Answer]) -> None:
        """Write the file at once."""
        stored = {name: (a.exact, a.allowed) for name, a in answers.items()}
        part = self.path.with_suffix(".part")
        torch.save({"inputs": inputs, "checked": checked, "answers": stored}, part)
        part.rename(self.path)

    def load(self) -> dict[str, Any]:
        """What :meth:`save` was given; answers as (exact, allowed)."""
        content: dict[str, Any] = torch.load(self.path)
        return content

    def inputs(self) -> Tensors:
        """The inputs alone: all images of the batch, on the case's device and in its type."""
        device = self.case.device
        inputs: Tensors = {k: device.put(v) for k, v in self.load()["inputs"].items()}
        for name in inputs.keys() & set(_BATCHED):
            kept = len(inputs[name])
            if self.case.batch > kept:
                images = torch.arange(self.case.batch, device=device.kind) % kept
                inputs[name] = inputs[name][images]
        return inputs


class Answer:
    """An exact result, and how far a contestant may be from it.

    The project's tolerance: twice eager PyTorch's own error, plus sqrt(depth) * eps * magnitude for sums of
    ``depth`` terms whose absolute values add up to at most ``magnitude``, plus half a unit in the last place
    of the largest result.
    """

    def __init__(self, exact: Tensor, eager: Tensor, magnitude: float, depth: int) -> None:
        # All types are added up in float32.
        sums, rounding = torch.finfo(torch.float32).eps, torch.finfo(eager.dtype).eps / 2
        self.exact = exact.cpu()
        self.allowed = (
            2 * largest_error(eager, exact)
            + math.sqrt(depth) * sums * magnitude
            + rounding * exact.abs().max().item()
        )


def largest_error(actual: Tensor, exact: Tensor) -> float:
    """The largest difference; infinite where a value is not finite."""
    if not torch.isfinite(actual).all():
        return math.inf
    return (actual.double() - exact).abs().max().item()


def mismatch(actual: Tensor, exact: Tensor, allowed: float) -> str | None:
    """Why this is not the result asked for; None if it is."""
    if actual.shape != exact.shape:
        return f"shape {tuple(actual.shape)}, want {tuple(exact.shape)}"
    error = largest_error(actual, exact)
    if error <= allowed:
        return None
    return f"error {error:.2e}, allowed {allowed:.2e}"


def checked_images(batch: int) -> list[int]:
    """The first, the last, and one between."""
    return sorted({0, batch // 2, batch - 1}) if batch > KEPT_IMAGES else list(range(batch))


def kept_images(batch: int) -> list[int]:
    """Which of the images that are kept the checked ones repeat."""
    return [image % KEPT_IMAGES for image in checked_images(batch)]


def make(folder: str, case: Case) -> None:
    """Make the file of a case, unless it is there."""
    problem = Problem(Path(folder), case)
    if not problem.exists():
        with torch.inference_mode():
            inputs, answers = _MAKERS[type(case)](problem.folder, case)
            problem.save(inputs, checked_images(case.batch), answers)


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
    """Random weights, with BatchNorm statistics of random images of the network's own size.

    With statistics at their defaults activations shrink from layer to layer, down to where rounding and
    the speed of some instructions differ from those of a trained network; with those of other images they grow.
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
        # A channel that hardly varies in these images would blow up in others.
        variance.clamp_(min=variance.mean().item())
    return model.state_dict()


def _network(folder: Path, case: NetworkCase) -> tuple[Tensors, dict[str, Answer]]:
    model = network(folder, case)
    torch.manual_seed(SEED + 1)
    images = torch.randn(min(case.batch, KEPT_IMAGES), 3, case.resolution, case.resolution)
    some = case.device.put(images[kept_images(case.batch)])
    model = case.device.put(model)
    with effkernels.use_backend("torch"):
        eager = module_by_module(model)(some)
        exact = model.double()
        features = exact.forward_head(exact.forward_features(some.double()), pre_logits=True)
    classifier = exact.classifier
    assert isinstance(classifier, nn.Linear)
    magnitude = (features.abs() @ classifier.weight.abs().T).max().item()
    logits = classifier(features)
    return {"images": images}, {"result": Answer(logits, eager, magnitude, classifier.in_features)}


def module_by_module(model: nn.Module) -> nn.Module:
    """The same model with hooks, so that its layers run unfused, as ordinary modules."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            module.register_forward_hook(lambda *_: None)
    return model


def _depthwise(_: Path, case: DepthwiseCase) -> tuple[Tensors, dict[str, Answer]]:
    torch.manual_seed(SEED)
    side = case.kernel_size
    inputs = {
        "x": torch.randn(min(case.batch, KEPT_IMAGES), case.channels, case.height, case.width),
        "weight": torch.randn(case.channels, 1, side, side) / side,
        **_norm(case.channels),
    }
    answer = _layer_answer(inputs, case, depthwise_conv(case), depth=side * side)
    return inputs, {"result": answer}


def depthwise_conv(case: DepthwiseCase) -> Callable[[Tensor, Tensor], Tensor]:
    """The bare convolution of an input and a weight."""

    def conv(x: Tensor, weight: Tensor) -> Tensor:
        padding = case.kernel_size // 2
        return F.conv2d(x, weight, None, case.stride, padding, groups=case.channels)

    return conv


def _pointwise(_: Path, case: PointwiseCase) -> tuple[Tensors, dict[str, Answer]]:
    torch.manual_seed(SEED)
    batch = min(case.batch, KEPT_IMAGES)
    inputs = {
        "x": torch.randn(batch, case.in_channels, case.height, case.width),
        "weight": torch.randn(case.out_channels, case.in_channels, 1, 1) / case.in_channels**0.5,
        **_norm(case.out_channels),
    }
    if case.gated:
        inputs["gate"] = torch.rand(batch, case.in_channels)
    if case.residual:
        inputs["residual"] = torch.randn(batch, case.out_channels, case.height, case.width)
    some = _checked(inputs, case)
    x, weight = some["x"], some["weight"]
    exact = F.conv2d(x.double(), weight.double())
    magnitude = F.conv2d(x.double().abs(), weight.double().abs()).max().item()
    product = Answer(exact, F.conv2d(x, weight), magnitude, case.in_channels)
    result = _layer_answer(inputs, case, F.conv2d, depth=case.in_channels)
    return inputs, {"result": result, "product": product}


def _norm(channels: int) -> Tensors:
    """BatchNorm vectors away from their defaults."""
    return {
        "bn_weight": torch.empty(channels).uniform_(0.5, 1.5),
        "bn_bias": torch.empty(channels).uniform_(-0.3, 0.3),
        "running_mean": torch.randn(channels) * 0.1,
        "running_var": torch.empty(channels).uniform_(0.5, 2.0),
    }


def batch_norm(x: Tensor, inputs: Tensors) -> Tensor:
    """Inference BatchNorm with the vectors of a layer's problem."""
    mean, variance = inputs["running_mean"], inputs["running_var"]
    return F.batch_norm(x, mean, variance, inputs["bn_weight"], inputs["bn_bias"], eps=_EPS)


def ours_norm(inputs: Tensors) -> effkernels.ops.BatchNorm:
    """The same as an argument of effkernels' ops."""
    return effkernels.ops.BatchNorm(
        inputs["bn_weight"], inputs["bn_bias"], inputs["running_mean"], inputs["running_var"], _EPS
    )


def layer(
    inputs: Tensors, activation: str, conv: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[], Tensor]:
    """Gate, convolution, BatchNorm, activation and residual as separate PyTorch calls; in place where it can."""
    act = {"silu": nn.SiLU(True), "relu6": nn.ReLU6(True)}.get(activation, nn.Identity())
    x, weight = inputs["x"], inputs["weight"]
    gate = inputs["gate"][:, :, None, None] if "gate" in inputs else None
    residual = inputs.get("residual")

    def run() -> Tensor:
        y: Tensor = act(batch_norm(conv(x if gate is None else x * gate, weight), inputs))
        return y if residual is None else y.add_(residual)

    return run


def _checked(inputs: Tensors, case: Case) -> Tensors:
    """The checked images, on the case's device and in its type."""
    kept = kept_images(case.batch)
    return {k: case.device.put(v[kept] if k in _BATCHED else v) for k, v in inputs.items()}


def _layer_answer(
    inputs: Tensors,
    case: DepthwiseCase | PointwiseCase,
    conv: Callable[[Tensor, Tensor], Tensor],
    *,
    depth: int,
) -> Answer:
    some = _checked(inputs, case)
    exact = {k: v.double() for k, v in some.items()}
    scale = exact["bn_weight"] * (exact["running_var"] + _EPS).rsqrt()
    sums = conv(exact["x"].abs(), exact["weight"].abs())
    magnitude = (sums * scale[:, None, None]).max().item()
    run = [layer(tensors, case.activation, conv)() for tensors in (exact, some)]
    return Answer(run[0], run[1], magnitude, depth)


_MAKERS: dict[type, Callable[[Path, Any], tuple[Tensors, dict[str, Answer]]]] = {
    NetworkCase: _network,
    DepthwiseCase: _depthwise,
    PointwiseCase: _pointwise,
}
