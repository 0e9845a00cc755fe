"""Latency of whole networks at batch 1: ours as built and fused, and the same modules run one by one.

``pytest benchmarks/ --benchmark-only``. Each contestant's logits are compared with the float64 network's
before it is timed.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import effkernels

pytest.importorskip("pytest_benchmark", reason="pip install 'effkernels[bench]'")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Run = Callable[[Tensor], Tensor]


def module_by_module(model: nn.Module) -> nn.Module:
    """A copy that runs unfused: what eager PyTorch does with these layers."""
    eager = copy.deepcopy(model)
    for module in eager.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            module.register_forward_hook(lambda *_: None)
    return eager


class _NCHW(nn.Module):
    """The same network in PyTorch's default layout: its own door would convert to channels_last."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) images to logits."""
        model = self.model
        x = model.stem(x)
        for stage in model.stages:
            x = stage(x)
        return model.forward_head(model.head(x))


CONTESTANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "effkernels": lambda model: model,
    "effkernels-fused": lambda model: model.fuse(),
    "eager-channels_last": module_by_module,
    "eager-NCHW": lambda model: _NCHW(module_by_module(model)),
}


@functools.lru_cache(maxsize=1)
def prepared(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """The model, an input, and the logits in float64, which take PyTorch seconds on a CPU."""
    torch.manual_seed(0)
    model = effkernels.create_model(name, device=DEVICE).eval()
    size = model.config.resolution
    x = torch.randn(1, 3, size, size, device=DEVICE)
    return model, x, copy.deepcopy(model).double()(x.double())


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b4", "efficientnet_lite0"])
@torch.inference_mode()
def test_latency(benchmark: Callable[[Run, Tensor], Tensor], name: str, contestant: str) -> None:
    model, x, exact = prepared(name)
    run = CONTESTANTS[contestant](model)

    def timed(x: Tensor) -> Tensor:
        y = run(x)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return y

    for _ in range(3):
        y = timed(x)
    torch.testing.assert_close(y.double(), exact, rtol=1e-3, atol=1e-3 * exact.abs().max().item())
    benchmark.group = f"{name}, {x.shape[-1]} px, batch 1, float32, {DEVICE}"
    benchmark(timed, x)
