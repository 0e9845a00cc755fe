"""Networks of other packages, depthwise kernels by name, and inputs used in turn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.cases.networks import case
from benchmarks.contestants import Missing
from benchmarks.contestants.eager import choose_depthwise_kernels, stock_network
from benchmarks.harness.inputs import copies, in_turn
from benchmarks.harness.making import make

LITE0 = case("efficientnet_lite0", resolution=32)


def test_a_package_without_the_model_is_missing(tmp_path: Path) -> None:
    make(str(tmp_path), LITE0)
    with pytest.raises(Missing, match="torchvision"):
        stock_network(LITE0, tmp_path, "torchvision")
    model, source = stock_network(LITE0, tmp_path)
    assert not model.training
    assert source


def test_the_requested_package_is_used(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    make(str(tmp_path), LITE0)
    model, source = stock_network(LITE0, tmp_path, "timm")
    assert source.startswith("timm ")
    assert type(model).__module__.startswith("timm.")


def test_depthwise_kernels_are_chosen_if_pytorch_has_the_setting() -> None:
    cudnn = torch.backends.cudnn
    if not hasattr(cudnn, "depthwise_kernel"):
        with pytest.raises(Missing, match=r"no torch\.backends\.cudnn\.depthwise_kernel"):
            choose_depthwise_kernels("native")
        return
    before = cudnn.depthwise_kernel
    try:
        choose_depthwise_kernels("native")
        assert cudnn.depthwise_kernel == "native"
    finally:
        cudnn.depthwise_kernel = before


def test_inputs_take_turns_on_a_gpu() -> None:
    assert len(copies(torch.ones(1))) == 1
    large = torch.empty(2**20, device="meta")  # stands for a tensor on a GPU
    assert len(copies(large)) == 64
    assert len(copies(torch.empty(10 * 2**20, device="meta"))) == 11
    run = in_turn(lambda x: x + 1, [torch.tensor(v) for v in (1, 2, 3)])
    assert [run().item() for _ in range(4)] == [2, 3, 4, 2]
