"""Whole networks in PyTorch: ours, the same modules run one by one, and those compiled."""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import effkernels
from benchmarks.cases import NetworkCase
from benchmarks.contestants import Built, Missing
from benchmarks.network_problem import module_by_module, network
from benchmarks.problem import Problem
from benchmarks.replay import ROTATED_BYTES
from effkernels.checkpoints import export_state


def ours(case: NetworkCase, folder: Path, *, fuse: bool = False, graph: bool = False) -> Built:
    """The model as a user has it after ``.eval()``, on whatever backend it chooses."""
    model = network(folder, case)
    model = case.device.put(model.fuse() if fuse else model)
    images = _images(case, folder, channels_last=False)
    return Built(_runner(model, images, graph), {"backends": available_backends()})


def _runner(model: nn.Module, images: Tensor, graph: bool) -> Callable[[], Any]:
    """The model on these images, as it is or as a CUDA graph."""
    run = effkernels.graph(model, images, copy=False) if graph else model
    return in_turn(run, copies(images))


_MOST_COPIES = 64


def copies(x: Tensor) -> list[Tensor]:
    """``x``; on a GPU with so many copies that none is found in the L2 when it is its turn again.

    In a network a CPU's caches hold what the layer before wrote. Copies of inputs so small that 64 of them fit into the
    L2 do not matter beside what is read with them.
    """
    if x.device.type == "cpu":
        return [x]
    count = min(ROTATED_BYTES // max(x.nbytes, 1), _MOST_COPIES - 1)
    return [x, *(x.clone() for _ in range(count))]


def in_turn(run: Callable[[Tensor], Any], inputs: Sequence[Tensor]) -> Callable[[], Any]:
    """Runs with one input after the other."""
    if len(inputs) == 1:
        return lambda: run(inputs[0])
    following = itertools.cycle(inputs)
    return lambda: run(next(following))


def available_backends() -> list[str]:
    """Names of the backends that can run here, fastest first."""
    return [status.name for status in effkernels.backends().values() if status.available]


def eager(
    case: NetworkCase,
    folder: Path,
    *,
    channels_last: bool,
    graph: bool = False,
    package: str | None = None,
    depthwise: str | None = None,
) -> Built:
    """Eager PyTorch, module by module: those of a package; and with one of cuDNN's ways for depthwise kernels."""
    if depthwise is not None:
        choose_depthwise_kernels(depthwise)
    model, source = stock_network(case, folder, package)
    model, images = _in_layout(model, case, folder, channels_last)
    return Built(_runner(model, images, graph), {"modules": source})


def compiled(
    case: NetworkCase, folder: Path, *, freezing: bool, channels_last: bool, mode: str | None
) -> Built:
    """``torch.compile`` of the same modules, for this one shape."""
    import torch._inductor.config as inductor

    torch.compiler.reset()
    inductor.freezing = freezing
    model, source = stock_network(case, folder)
    model, images = _in_layout(model, case, folder, channels_last)
    fast = torch.compile(model, dynamic=False, mode=mode)
    try:
        with torch.inference_mode():
            fast(images)
    except Exception as error:
        # Without a C++ compiler there is no torch.compile on a CPU.
        if "compiler" in str(error).lower():
            raise Missing(str(error).strip().splitlines()[0]) from error
        raise
    details = {"modules": source, "freezing": freezing, "mode": mode}
    return Built(in_turn(fast, copies(images)), details)


def choose_depthwise_kernels(which: str) -> None:
    """ "cudnn" or "native", for all of this process.

    Raises:
        Missing: this PyTorch leaves no choice.
    """
    if not hasattr(torch.backends.cudnn, "depthwise_kernel"):
        raise Missing(f"PyTorch {torch.__version__} has no torch.backends.cudnn.depthwise_kernel")
    torch.backends.cudnn.depthwise_kernel = which


def stock_network(
    case: NetworkCase, folder: Path, package: str | None = None
) -> tuple[nn.Module, str]:
    """The network from modules that are not ours, with the shared weights, and where it is from.

    torchvision's where it has the model, else timm's; without both, our modules run one by one.

    Raises:
        Missing: the ``package`` that is asked for does not have it.
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
    """Our modules one by one, in the layout of the input: the model's own door would convert it."""

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


def _images(case: NetworkCase, folder: Path, *, channels_last: bool) -> Tensor:
    images = Problem(folder, case).inputs()["images"]
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


def _in_layout(
    model: nn.Module, case: NetworkCase, folder: Path, channels_last: bool
) -> tuple[nn.Module, Tensor]:
    model = case.device.put(model)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model, _images(case, folder, channels_last=channels_last)
