"""The matrix product of a 1x1 convolution, alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.cases.pointwise import PointwiseCase
from benchmarks.contestants import Built, Contestant
from benchmarks.harness.inputs import Run, layer_in_turn

CONTESTANTS = (
    Contestant(
        "torch.mm",
        "torch.mm",
        f"{__name__}:product",
        cpu=("products",),
        cuda=("products",),
        result="product",
        place=40,
    ),
)


def product(case: PointwiseCase, folder: Path) -> Built:
    """``torch.mm`` of the pixels and the weights, and nothing else."""

    def make(inputs: dict[str, Any]) -> Run:
        pixels = inputs["x"].permute(0, 2, 3, 1).reshape(-1, inputs["x"].shape[1])
        kernel = inputs["weight"].flatten(1).T
        n, _, height, width = inputs["x"].shape
        size = (n, height, width, kernel.shape[1])
        return lambda: torch.mm(pixels, kernel).view(size).permute(0, 3, 1, 2)

    return Built(layer_in_turn(make, case, folder, channels_last=True), {})
