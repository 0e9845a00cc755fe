"""What a torchvision user expects of a model: modes, sizes, copies, dtypes, wrappers, compilation."""

from __future__ import annotations

import copy
import io
import pickle
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import effkernels
from effkernels.models import EfficientNet
from effkernels.nn import ConvBnAct, DropPath, MBConv
from networks import images, small, small_copy, tiny, unfused
from processes import run_python
from requirements import needs_cpu_kernels


@pytest.fixture(scope="module")
def b0() -> EfficientNet:
    return small_copy().double().eval()


@pytest.fixture(scope="module")
def lite0() -> EfficientNet:
    return small_copy("efficientnet_lite0").double().eval()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 50), (64, 64), (31, 97)])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_any_size_fused_as_unfused(size: tuple[int, int], padding: str) -> None:
    model = small_copy(padding=padding).double().eval()
    x = images(2, 3, *size)
    torch.testing.assert_close(model(x), unfused(model, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_batches_are_independent(b0: EfficientNet, n: int) -> None:
    x = images(n, 3, 32, 32)
    y = b0(x)
    assert y.shape == (n, 10)
    if n:
        torch.testing.assert_close(torch.cat([b0(one[None]) for one in x]), y)


def test_memory_format_does_not_matter(b0: EfficientNet) -> None:
    x = images(2, 3, 32, 32)
    nhwc = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(b0(nhwc), b0(x))
    converted = copy.deepcopy(b0).to(memory_format=torch.channels_last)
    torch.testing.assert_close(converted(x), b0(x))


def test_forward_is_head_of_features(b0: EfficientNet) -> None:
    x = images(2, 3, 64, 96)
    features = b0.forward_features(x)
    assert features.shape == (2, b0.config.scaled_head_channels, 2, 3)
    torch.testing.assert_close(b0.forward_head(features), b0(x))
    pooled = b0.forward_head(features, pre_logits=True)
    torch.testing.assert_close(b0.classifier(pooled), b0(x))


def test_fuse_is_a_copy_with_the_same_logits(b0: EfficientNet, lite0: EfficientNet) -> None:
    for model in (b0, lite0):
        before = copy.deepcopy(model.state_dict())
        fused = model.fuse()
        x = images(2, 3, 48, 40)
        torch.testing.assert_close(fused(x), model(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(unfused(fused, x), model(x), rtol=1e-9, atol=1e-9)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
        assert not any(p.requires_grad for p in fused.parameters())
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key]), key
        again = fused.fuse()
        torch.testing.assert_close(again(x), fused(x))


def test_fused_model_refuses_training(lite0: EfficientNet) -> None:
    fused = lite0.fuse()
    assert not fused.eval().training
    with pytest.raises(NotImplementedError, match="cannot train"):
        fused.train()


def test_hook_on_an_inner_module_is_called_once_per_forward(b0: EfficientNet) -> None:
    model = copy.deepcopy(b0)
    seen: list[torch.Size] = []
    block = model.stages[1][0]
    handle = block.depthwise.conv.register_forward_hook(lambda m, i, y: seen.append(y.shape))
    x = images(1, 3, 32, 32)
    assert block.fusible() is None
    assert model.stages[3][1].fusible() == "silu"
    torch.testing.assert_close(model(x), b0(x), rtol=1e-9, atol=1e-9)
    assert seen == [(1, block.depthwise.conv.out_channels, 8, 8)]
    handle.remove()
    assert block.fusible() == "silu"


@pytest.mark.parametrize(
    "path", ["expand", "squeeze_excite", "project", "drop_path", "squeeze_excite.act"]
)
def test_hook_on_any_layer_of_a_block_is_called(b0: EfficientNet, path: str) -> None:
    block = copy.deepcopy(b0.stages[3][1])
    seen: list[object] = []
    block.get_submodule(path).register_forward_pre_hook(lambda *_: seen.append(1))
    x = images(1, block.project.conv.out_channels, 8, 8)
    torch.testing.assert_close(block(x), b0.stages[3][1](x), rtol=1e-9, atol=1e-9)
    assert seen == [1]


def test_replaced_modules_take_effect(b0: EfficientNet) -> None:
    block = copy.deepcopy(b0.stages[3][1])
    x = images(1, block.project.conv.out_channels, 8, 8)
    block.depthwise.act = nn.Tanh()
    assert block.fusible() is None
    want = block.expand(x)
    want = torch.tanh(block.depthwise.bn(block.depthwise.conv(want)))
    want = block.project(block.squeeze_excite(want)) + x
    torch.testing.assert_close(block(x), want)

    compiled = copy.deepcopy(b0.stages[3][1])
    compiled.expand.conv.compile(backend="eager")
    assert compiled.fusible() is None

    patched = copy.deepcopy(b0.stages[3][1])
    patched.project.conv.forward = lambda y: y[:, :8]
    assert patched.fusible() is None
    other = ConvBnAct(4, 4, 3, groups=2).double().eval()
    y = images(1, 4, 5, 5)
    torch.testing.assert_close(other(y), other.act(other.bn(other.conv(y))))


def test_changed_strides_and_dilations_take_effect(b0: EfficientNet) -> None:
    # As segmentation networks change a backbone.
    x = images(1, b0.stages[3][1].project.conv.out_channels, 8, 8)
    dilated = copy.deepcopy(b0.stages[3][1])
    dilated.depthwise.conv.dilation = dilated.depthwise.conv.padding = (2, 2)
    assert not torch.allclose(dilated(x), b0.stages[3][1](x))
    strided = copy.deepcopy(b0.stages[1][0])
    strided.project.conv.stride = (2, 2)
    for block, features in ((dilated, x), (strided, images(1, 8, 16, 16))):
        torch.testing.assert_close(block(features), unfused(block, features))


def test_pruning_and_parametrisation_take_effect(b0: EfficientNet) -> None:
    from torch.nn.utils import parametrizations, prune

    for change in (
        lambda conv: prune.l1_unstructured(conv, "weight", 0.5),
        parametrizations.weight_norm,
    ):
        block = copy.deepcopy(b0.stages[3][1])
        change(block.expand.conv)
        x = images(1, block.project.conv.out_channels, 8, 8)
        assert block.fusible() is None
        inner = block.expand.conv
        want = block.expand.act(block.expand.bn(inner(x)))
        torch.testing.assert_close(block.expand(x), want)
        block(x)


def test_in_place_updates_take_effect(b0: EfficientNet) -> None:
    model = copy.deepcopy(b0)
    x = images(1, 3, 32, 32)
    model(x)
    for parameter in model.stages[2].parameters():
        parameter.data.mul_(1.1)
    model.stages[3][0].depthwise.bn.running_var.data.mul_(2.0)
    torch.testing.assert_close(model(x), unfused(model, x), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(model(x), b0(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0"])
def test_compiles_in_one_graph_without_change(name: str) -> None:
    model = tiny(name, stages=3).double().requires_grad_()
    x = images(2, 3, 32, 32)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-9, atol=1e-9)
    model.train()
    for module in model.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0
    model.dropout.p = 0.0
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-9, atol=1e-9)


@needs_cpu_kernels
@torch.no_grad()
def test_compiled_kernels_compute_the_same() -> None:
    # To maps of one pixel, whose means are exact: compiled, the head takes them itself.
    model, x = tiny(stages=3), torch.randn(2, 3, 8, 8)
    torch._dynamo.reset()
    with effkernels.use_backend("cpu", fallback=False):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
        assert torch.equal(compiled, model.forward_head(model.forward_features(x)))


def test_copies(b0: EfficientNet, tmp_path: Path) -> None:
    x = images(1, 3, 32, 32)
    saved = io.BytesIO()
    torch.save(b0, saved)
    saved.seek(0)
    for copied in (
        copy.deepcopy(b0),
        pickle.loads(pickle.dumps(b0)),
        torch.load(saved, weights_only=False),
    ):
        torch.testing.assert_close(copied(x), b0(x), rtol=0, atol=0)
    torch.save(b0.state_dict(), tmp_path / "b0.pth")
    fresh = small(depth=0.5, dtype=torch.float64).eval()
    fresh.load_state_dict(torch.load(tmp_path / "b0.pth", weights_only=True))
    torch.testing.assert_close(fresh(x), b0(x), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    # A thousand logits, because the largest error of only a few varies too much.
    b0 = small_copy(num_classes=1000).double().eval()
    x = images(2, 3, 64, 64)
    exact = b0(x)
    model = copy.deepcopy(b0).to(dtype)
    y = model(x.to(dtype))
    assert y.dtype == dtype
    plain = unfused(model, x.to(dtype))
    error, eager = ((z.double() - exact).abs().max().item() for z in (y, plain))
    assert error <= 2 * eager
    with torch.autocast("cpu", dtype=dtype):
        mixed = copy.deepcopy(b0).float()(x.float())
    assert mixed.dtype == dtype
    assert (mixed.double() - exact).abs().max().item() <= 2 * eager


def test_options() -> None:
    model = effkernels.efficientnet_b0(
        num_classes=7, in_channels=4, bn_eps=1e-5, bn_momentum=0.1, dtype=torch.bfloat16
    )
    assert model.classifier.out_features == 7
    assert model.stem.conv.weight.shape[1] == 4
    assert {(m.eps, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {
        (1e-5, 0.1)
    }
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    with torch.device("meta"):
        assert effkernels.efficientnet_b0().stem.conv.weight.is_meta


def test_no_classes_gives_pooled_features() -> None:
    model = effkernels.efficientnet_b0(num_classes=0).eval()
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 1280)


def test_reset_classifier(b0: EfficientNet) -> None:
    model = copy.deepcopy(b0)
    model.reset_classifier(3)
    assert model(images(1, 3, 32, 32)).shape == (1, 3)
    assert model.classifier.weight.dtype == torch.float64
    assert model.num_classes == 3
    model.reset_classifier(0)
    assert model(images(1, 3, 32, 32)).shape == (1, model.config.scaled_head_channels)


def test_builds_and_runs_on_fake_tensors() -> None:
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    with FakeTensorMode():
        for options in ({}, {"features_only": True}):
            model = effkernels.efficientnet_b0(**options).eval()
            state = [*model.parameters(), *model.buffers()]
            assert all(isinstance(tensor, FakeTensor) for tensor in state)
        model = effkernels.efficientnet_b0().eval()
        assert model(torch.randn(2, 3, 64, 64)).shape == (2, 1000)


def test_reset_classifier_after_another_head(b0: EfficientNet) -> None:
    model, x = copy.deepcopy(b0), images(1, 3, 32, 32)
    channels = model.head.conv.in_channels
    model.head = ConvBnAct(channels, 24, 1).double().eval()
    model.reset_classifier(3)
    assert model(x).shape == (1, 3)
    model.head = nn.Sequential(nn.Conv2d(channels, 24, 1).double())
    model.reset_classifier(5)
    assert model(x).shape == (1, 5)


def test_sync_batch_norm_conversion(b0: EfficientNet) -> None:
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(b0)).eval()
    assert isinstance(converted.stem.bn, nn.SyncBatchNorm)
    assert converted.stages[3][1].fusible() == "silu"
    x = images(1, 3, 32, 32)
    torch.testing.assert_close(converted(x), b0(x))


def test_ema_copy_averages_buffers_too(lite0: EfficientNet) -> None:
    from torch.optim.swa_utils import AveragedModel

    average = AveragedModel(lite0, use_buffers=True)
    average.update_parameters(lite0)
    x = images(1, 3, 32, 32)
    torch.testing.assert_close(average.eval()(x), lite0(x))


def test_block_without_expansion_or_gate() -> None:
    block = MBConv(8, 8, 3, expand_ratio=1).double().eval()
    assert block.expand is None
    assert block.squeeze_excite is None
    x = images(1, 8, 5, 5)
    torch.testing.assert_close(block(x), unfused(block, x))


def test_the_largest_is_built_in_under_three_seconds() -> None:
    times: list[float] = []
    while len(times) < 3 and not any(seconds < 3.0 for seconds in times):
        start = time.perf_counter()
        effkernels.efficientnet_b7()
        times.append(time.perf_counter() - start)
    assert min(times) < 3.0


def test_import_costs_little_beside_that_of_torch() -> None:
    """In processor time, because other programs do not change the ratio: 0.21 to 0.24 was measured, of 1.5 to 2.7 s.

    Nor do models need what PyTorch imports late: sympy alone takes 0.7 s.
    """
    code = (
        "import sys, time; start = time.process_time()\n"
        "import torch; then = time.process_time()\n"
        "import effkernels; print((time.process_time() - then) / (then - start))\n"
        "had = 'sympy' in sys.modules; model = effkernels.efficientnet_b0().eval()\n"
        "with torch.no_grad(): model(torch.zeros(1, 3, 32, 32))\n"
        "assert ('sympy' in sys.modules) == had"
    )
    ratios: list[float] = []
    while len(ratios) < 3 and not any(ratio < 0.35 for ratio in ratios):
        run = run_python("-c", code)
        assert (run.returncode, run.stderr) == (0, "")
        ratios.append(float(run.stdout))
    assert min(ratios) < 0.35
