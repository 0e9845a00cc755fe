"""Eager PyTorch: the modules of other packages, and layers as separate calls."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import effkernels
from benchmarks.cases.layers import LayerCase
from benchmarks.cases.networks import NetworkCase, images, module_by_module, network
from benchmarks.contestants import Built, Contestant, Missing
from benchmarks.contestants.ours import runner
from benchmarks.harness.inputs import Run, layer_in_turn
from effkernels.checkpoints import export_state

_MODEL, _LAYER = f"{__name__}:model", f"{__name__}:layer"
_NHWC, _NCHW = ("channels_last", True), ("channels_last", False)


def _depthwise_kernels() -> Iterator[Contestant]:
    """Both layouts with each of the depthwise kernels that PyTorch can choose from."""
    for layout in (_NHWC, _NCHW):
        for kernels in ("cudnn", "native"):
            name = f"eager-{'channels_last' if layout[1] else 'NCHW'}-{kernels}"
            options = (layout, ("depthwise", kernels))
            yield Contestant(
                name, "eager", _MODEL, options, cuda=("networks",), full=True, place=33
            )


# If both packages have the model, torchvision's modules are the first contestant, and timm's the second.
CONTESTANTS = (
    Contestant(
        "eager-channels_last",
        "eager",
        _MODEL,
        (_NHWC,),
        cpu=("networks", "low-precision", "memory"),
        cuda=("networks", "growth", "memory", "host"),
        place=30,
    ),
    Contestant(
        "eager-NCHW",
        "eager",
        _MODEL,
        (_NCHW,),
        cpu=("networks", "low-precision"),
        cuda=("networks",),
        place=31,
    ),
    Contestant(
        "timm-channels_last",
        "eager",
        _MODEL,
        (_NHWC, ("package", "timm")),
        cpu=("networks",),
        cuda=("networks",),
        full=True,
        place=32,
    ),
    *_depthwise_kernels(),
    Contestant(
        "eager-channels_last-graph",
        "eager, CUDA graph",
        _MODEL,
        (_NHWC, ("graph", True)),
        cuda=("networks",),
        place=34,
    ),
    Contestant(
        "eager-channels_last",
        "eager",
        _LAYER,
        (_NHWC,),
        cpu=("layers",),
        cuda=("layers",),
        place=30,
    ),
    Contestant(
        "eager-NCHW",
        "eager",
        _LAYER,
        (_NCHW,),
        cpu=("convolutions",),
        cuda=("convolutions",),
        place=31,
    ),
    Contestant(
        "eager-native",
        "eager",
        _LAYER,
        (_NCHW, ("cudnn", False)),
        cuda=("convolutions",),
        place=32,
    ),
    Contestant(
        "torchvision",
        "eager",
        "benchmarks.harness.startup:measure",
        cpu=("startup",),
        cuda=("startup",),
        place=30,
    ),
)


def layer(case: LayerCase, folder: Path, *, channels_last: bool, cudnn: bool = True) -> Built:
    """One PyTorch call after the other; on a GPU convolutions use cuDNN or PyTorch's own kernels."""
    torch.backends.cudnn.enabled = cudnn  # this process belongs to this contestant

    def make(inputs: dict[str, Any]) -> Run:
        return functools.partial(case.shape.eager, **inputs)

    return Built(layer_in_turn(make, case, folder, channels_last=channels_last), {})


def model(
    case: NetworkCase,
    folder: Path,
    *,
    channels_last: bool,
    graph: bool = False,
    package: str | None = None,
    depthwise: str | None = None,
) -> Built:
    """Eager PyTorch, module by module: a package's modules, optionally with one of the depthwise kernels of
    cuDNN.
    """
    if depthwise is not None:
        choose_depthwise_kernels(depthwise)
    stock, source = stock_network(case, folder, package)
    stock, batch = in_layout(stock, case, folder, channels_last)
    return Built(runner(stock, batch, graph), {"modules": source})


def choose_depthwise_kernels(which: str) -> None:
    """Make this whole process use "cudnn" or "native".

    Raises:
        Missing: this PyTorch has no such setting.
    """
    if not hasattr(torch.backends.cudnn, "depthwise_kernel"):
        raise Missing(f"PyTorch {torch.__version__} has no torch.backends.cudnn.depthwise_kernel")
    torch.backends.cudnn.depthwise_kernel = which


def stock_network(
    case: NetworkCase, folder: Path, package: str | None = None
) -> tuple[nn.Module, str]:
    """The network built from modules other than ours, with the shared weights, and the package it is from.

    torchvision's if it has the model, else timm's; without both, our modules, run one by one.

    Raises:
        Missing: the requested ``package`` does not have it.
    """
    model = network(folder, case)
    reasons = []
    for make in _STOCK.values() if package is None else (_STOCK[package],):
        try:
            stock, source = make(case.model, model)
        except (ImportError, ValueError, RuntimeError, AttributeError) as error:
            reasons.append(f"{make.__name__.strip('_')}: {error}".splitlines()[0])
            continue
        for module in stock.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = model.config.bn_eps
        return stock.eval().requires_grad_(False), source
    if package is not None:
        raise Missing("; ".join(reasons))
    return Unfused(model).eval(), f"effkernels' own, with hooks ({'; '.join(reasons)})"


def _torchvision(name: str, model: effkernels.EfficientNet) -> tuple[nn.Module, str]:
    state = export_state(model.state_dict(), "torchvision")
    make = getattr(importlib.import_module("torchvision.models"), name)
    return _loaded(make(), state, "torchvision")


def _timm(name: str, model: effkernels.EfficientNet) -> tuple[nn.Module, str]:
    state = export_state(model.state_dict(), "timm")
    return _loaded(importlib.import_module("timm").create_model(name), state, "timm")


_STOCK = {"torchvision": _torchvision, "timm": _timm}


def _loaded(model: Any, state: dict[str, Tensor], package: str) -> tuple[nn.Module, str]:
    model.load_state_dict(state)
    return model, f"{package} {importlib.metadata.version(package)}"


class Unfused(nn.Module):
    """Our modules one by one, in the layout of the input, which the model's own forward would convert."""

    def __init__(self, model: effkernels.EfficientNet) -> None:
        super().__init__()
        self.model = module_by_module(model)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) images to logits."""
        model: Any = self.model
        x = model.stem(x)
        for stage in model.stages:
            x = stage(x)
        logits: Tensor = model.forward_head(model.head(x))
        return logits


def in_layout(
    model: nn.Module, case: NetworkCase, folder: Path, channels_last: bool
) -> tuple[nn.Module, Tensor]:
    model = case.device.put(model)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model, images(case, folder, channels_last=channels_last)
