"""Training steps: our networks, and those of other packages in both layouts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cases.networks import images, network
from benchmarks.cases.training import TrainingCase, labels, trained
from benchmarks.contestants import Built, Contestant
from benchmarks.contestants.eager import in_layout, stock_network
from benchmarks.contestants.ours import available_backends

_OURS, _STOCK = f"{__name__}:ours", f"{__name__}:stock"
_GROUPS = ("training",)

CONTESTANTS = (
    Contestant("effkernels", "effkernels", _OURS, cpu=_GROUPS),
    *(
        Contestant(
            f"{package}-{'channels_last' if channels_last else 'NCHW'}",
            package,
            _STOCK,
            (("package", package), ("channels_last", channels_last)),
            place=30,
            cpu=_GROUPS,
        )
        for package in ("torchvision", "timm")
        for channels_last in (True, False)
    ),
)


def ours(case: TrainingCase, folder: Path) -> Built:
    """Our network, as ``effkernels train`` feeds it."""
    model = case.device.put(trained(network(folder, case)))
    return _step(model, images(case, folder, channels_last=True), available_backends())


def stock(case: TrainingCase, folder: Path, *, package: str, channels_last: bool) -> Built:
    """Another package's network, with the same weights."""
    model, source = stock_network(case, folder, package)
    model, batch = in_layout(trained(model), case, folder, channels_last)
    return _step(model, batch, source)


def _step(model: nn.Module, batch: Tensor, modules: object) -> Built:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    classes = labels(batch)

    def run() -> Tensor:
        # Benchmarks run in inference mode, in which nothing can be differentiated.
        with torch.inference_mode(False), torch.enable_grad():
            logits: Tensor = model(batch)
            F.cross_entropy(logits, classes).backward()
            optimizer.step()
            optimizer.zero_grad()
        return logits.detach()

    return Built(run, {"modules": modules})
