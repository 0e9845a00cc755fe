"""Training, and the memory layout of activations and gradients."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import effkernels
from effkernels.nn import DropPath
from networks import images, small_copy, unfused


def test_training_mode_uses_batch_statistics_and_drops() -> None:
    model = small_copy()
    x = torch.randn(4, 3, 32, 32)
    before = model.stem.bn.running_mean.clone()
    assert not torch.equal(model(x), model(x))
    assert not torch.equal(before, model.stem.bn.running_mean)
    still = small_copy(dropout=0.0, drop_path=0.0)
    torch.testing.assert_close(still(x), still(x))


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    layer = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    y = layer(x)
    kept = y[:, 0, 0] != 0
    torch.testing.assert_close(y, torch.where(kept[:, None, None], x / 0.75, 0.0))
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.04)
    layer.rate = 1.0
    assert not layer(x).any()
    assert layer.eval()(x) is x


def test_frozen_batch_norm_runs_fused_and_trains_the_rest() -> None:
    model = small_copy(dropout=0.0, drop_path=0.0).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    block = model.stages[3][1]
    assert model.training
    assert block.fusible() == "silu"
    x = images(2, 3, 32, 32)
    grads = []
    for run in (model, lambda x: unfused(model, x)):
        model.zero_grad()
        run(x).square().sum().backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, ours in grads[0].items():
        torch.testing.assert_close(ours, grads[1][name], rtol=1e-7, atol=1e-9, msg=name)


def test_grad_checkpointing_changes_no_gradient() -> None:
    model = small_copy(dropout=0.0, drop_path=0.0).double()
    x = images(2, 3, 32, 32)
    grads = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*grads)


def test_grad_checkpointing_updates_statistics_once() -> None:
    x = images(2, 3, 32, 32)
    plain = small_copy(dropout=0.0, drop_path=0.0).double()
    kept = copy.deepcopy(plain)
    kept.set_grad_checkpointing()
    before = int(kept.stages[3][0].project.bn.num_batches_tracked)
    for model in (plain, kept):
        for _ in range(2):
            model(x).square().sum().backward()
    for name, buffer in kept.named_buffers():
        torch.testing.assert_close(buffer, plain.get_buffer(name), msg=name)
    assert kept.stages[3][0].project.bn.num_batches_tracked == before + 2


def test_grad_checkpointing_calls_wrapped_stages() -> None:
    class Doubled(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    model, x = small_copy(dropout=0.0, drop_path=0.0).double(), images(2, 3, 32, 32)
    model.stages = Doubled(*model.stages)
    want = model(x)
    model.set_grad_checkpointing()
    torch.testing.assert_close(model(x), want)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_gradients_have_the_strides_of_their_parameters(
    padding: str, channels_last: bool, frozen: bool, checkpointing: bool
) -> None:
    # DistributedDataParallel copies gradients with other strides at each step, and warns about
    # them.
    model = small_copy(padding=padding)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    model.set_grad_checkpointing(checkpointing)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and frozen:
            module.eval()
    for size in (32, 64):
        model.zero_grad()
        model(torch.randn(2, 3, size, size)).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.stride() == parameter.stride(), (name, parameter.shape)


@pytest.mark.parametrize("training", [False, True])
def test_public_methods_return_the_layout_of_their_input(training: bool) -> None:
    model, x = small_copy().train(training), torch.randn(2, 3, 64, 64)
    nhwc = x.contiguous(memory_format=torch.channels_last)
    picture = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    for nchw in (x, x[:, :, :33, :40], picture):
        features = model.forward_features(nchw)
        assert features.is_contiguous()
        assert features.view(2, -1).shape[1] == features[0].numel()
    for one in (nhwc, nhwc[:, :, :33, :40]):
        features = model.forward_features(one)
        assert features.is_contiguous(memory_format=torch.channels_last)
    assert model.forward_head(features).is_contiguous()
    grey = small_copy(in_channels=1).train(training)
    assert grey.forward_features(x[:, :1]).is_contiguous()


def test_feature_maps_are_channels_last() -> None:
    backbone = small_copy(features_only=True).eval()
    for fmap in backbone(torch.randn(2, 3, 64, 64)):
        assert fmap.is_contiguous(memory_format=torch.channels_last)


def test_distributed_data_parallel(tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1
    )
    try:
        model = effkernels.efficientnet_b0(num_classes=3)
        parallel = nn.parallel.DistributedDataParallel(model)
        parallel(torch.randn(2, 3, 32, 32)).sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        x = torch.randn(1, 3, 32, 32)
        torch.testing.assert_close(parallel.eval()(x), model.eval()(x))
    finally:
        torch.distributed.destroy_process_group()


def test_weights_are_initialised_without_biases_too() -> None:
    model = small_copy()
    model.classifier = nn.Linear(model.classifier.in_features, 5, bias=False)
    model.stem.bn = nn.SyncBatchNorm(model.stem.conv.out_channels)
    model.stem.bn.running_mean.fill_(3.0)
    model.initialise()
    assert not model.stem.bn.running_mean.any()
