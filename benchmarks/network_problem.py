"""Networks with weights that all contestants share, and what they make of images in float64."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import effkernels
from benchmarks.cases import NetworkCase
from benchmarks.problem import KEPT_IMAGES, SEED, Answer, Tensors, checked


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


def make(folder: Path, case: NetworkCase) -> tuple[Tensors, dict[str, Answer]]:
    """Random images, and the logits of those that are checked."""
    model = network(folder, case)
    torch.manual_seed(SEED + 1)
    images = torch.randn(min(case.batch, KEPT_IMAGES), 3, case.resolution, case.resolution)
    some = checked({"images": images}, case)["images"]
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
