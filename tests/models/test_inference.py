"""A classifier in one op: the same logits, and every change of its layers takes effect at the next call."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import effkernels
from effkernels import EfficientNet, dispatch
from effkernels.models import inference
from networks import small, small_copy
from randomise import randomise
from requirements import needs_cpu_kernels
from specs.tolerance import assert_within_eager

pytestmark = needs_cpu_kernels


def thousand(**options: Any) -> EfficientNet:
    """A small network in eval mode with enough logits for a stable comparison; all have the same weights."""
    return small_copy(**{"num_classes": 1000, **options}).eval()


def other() -> EfficientNet:
    """The same with other weights."""
    return small(depth=0.5, num_classes=1000).eval()


def layer_by_layer(model: EfficientNet, x: Tensor) -> Tensor:
    with mock.patch.object(inference, "maps", return_value=None):
        return model.forward_head(model.forward_features(x))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Receives one entry for each network that ran as one op."""
    kernels = dispatch._BACKENDS["cpu"].kernels
    kernel, seen = kernels["network"], []

    def spied(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def spy(*arguments: Any) -> Tensor:
            seen.append("network")
            return run(*arguments)

        return spy

    def bind(*arguments: Any) -> Callable[..., Tensor] | None:
        assert kernel.bind is not None
        bound = kernel.bind(*arguments)
        return None if bound is None else spied(bound)

    spy = dispatch.Kernel(spied(kernel.run), kernel.rejects, bind=bind)
    monkeypatch.setitem(kernels, "network", spy)
    return seen


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (1, 3, 64, 64)),
        ({}, (3, 3, 33, 70)),
        ({"padding": "same"}, (2, 3, 65, 48)),
        # Features of many images: the largest error among one image's 320 features, which share one cause,
        # varies threefold.
        ({"in_channels": 1, "num_classes": 0}, (32, 1, 40, 40)),
    ],
)
@torch.inference_mode()
def test_logits(options: dict[str, Any], shape: tuple[int, ...], calls: list[str]) -> None:
    model, x = thousand(**options), torch.randn(shape)
    logits = model(x)
    assert calls == ["network"]
    exact = copy.deepcopy(model).double()(x.double())
    with effkernels.use_backend("torch"):
        eager = model(x)
    assert len(calls) == 1
    assert_within_eager(logits, eager, exact)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_b1"])
@torch.inference_mode()
def test_other_networks(name: str, calls: list[str]) -> None:
    model, x = effkernels.create_model(name).eval(), torch.randn(2, 3, 48, 48)
    randomise(model)
    assert_within_eager(
        model(x),
        layer_by_layer(model, x),
        copy.deepcopy(model).double()(x.double()),
        magnitude=1.0,
        depth=64,
    )
    assert calls


@torch.inference_mode()
def test_fused(calls: list[str]) -> None:
    model, x = thousand(), torch.randn(1, 3, 64, 64)
    fused = model.fuse()
    torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-4)
    assert len(calls) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_16_bits(dtype: torch.dtype, calls: list[str]) -> None:
    model = thousand().to(dtype)
    x = torch.randn(2, 3, 64, 64).to(dtype)
    logits = model(x)
    assert calls
    assert logits.dtype == dtype
    with effkernels.use_backend("torch"):
        eager = model(x)
    assert_within_eager(logits, eager, copy.deepcopy(model).double()(x.double()))


@pytest.mark.parametrize("images", [1, 8, 9])
@pytest.mark.parametrize("classes", [3, 1000])
@torch.inference_mode()
def test_classifiers(images: int, classes: int, calls: list[str]) -> None:
    model, x = thousand(num_classes=classes), torch.randn(images, 3, 32, 32)
    torch.testing.assert_close(model(x), layer_by_layer(model, x), rtol=1e-4, atol=1e-4)
    assert calls == ["network"]


@torch.inference_mode()
def test_dropout_in_training(calls: list[str]) -> None:
    model, x = thousand(dropout=0.5), torch.randn(1, 3, 32, 32)
    still = model(x)
    model.dropout.train()
    assert (model(x) - still).abs().max() > 1e-2
    model.dropout.eval()
    torch.testing.assert_close(model(x), still)
    assert len(calls) == 3


@pytest.mark.parametrize("layout", ["nchw", "channels_last", "sliced", "expanded"])
@torch.inference_mode()
def test_layouts_of_images(layout: str, calls: list[str]) -> None:
    model, x = thousand(), torch.randn(2, 3, 40, 33)
    expected = layer_by_layer(model, x[:, :, :33, :30] if layout == "sliced" else x)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "sliced":
        x = x[:, :, :33, :30]
    elif layout == "expanded":
        x = x[:1].expand(2, -1, -1, -1)
        expected = expected[:1].expand(2, -1)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    assert calls == ["network"]


@torch.inference_mode()
def test_images_in_chunks(calls: list[str]) -> None:
    """The maps of the batch are larger than a chunk; the last chunk is smaller."""
    model = thousand()
    x = torch.randn(5, 3, 480, 480)
    logits = model(x)
    one_by_one = torch.cat([model(image[None]) for image in x])
    torch.testing.assert_close(logits, one_by_one, rtol=1e-4, atol=1e-4)
    assert model(x[:0]).shape == (0, 1000)
    assert len(calls) == 7


def _hook(model: EfficientNet) -> None:
    model.stages[1][0].depthwise.conv.register_forward_hook(lambda *_: None)


def _stage_hook(model: EfficientNet) -> None:
    model.stages[2].register_forward_hook(lambda _m, _i, y: y * 2)


def _replace_weight(model: EfficientNet) -> None:
    conv = model.stages[1][0].expand.conv
    conv.weight = nn.Parameter(torch.randn_like(conv.weight))


def _replace_data(model: EfficientNet) -> None:
    conv = model.stages[1][0].project.conv
    conv.weight.data = torch.randn_like(conv.weight)


def _write_in_place(model: EfficientNet) -> None:
    with torch.no_grad():
        model.stem.conv.weight.mul_(1.5)


def _statistics(model: EfficientNet) -> None:
    model.stages[3][1].depthwise.bn.running_mean.add_(1.0)


def _epsilon(model: EfficientNet) -> None:
    model.stages[3][1].depthwise.bn.eps = 0.5


def _activation(model: EfficientNet) -> None:
    model.head.act = nn.ReLU()


def _block(model: EfficientNet) -> None:
    model.stages[3][1] = nn.Identity()


def _appended(model: EfficientNet) -> None:
    model.stages[0].append(nn.Tanh())


def _stride(model: EfficientNet) -> None:
    model.stages[5][0].depthwise.conv.stride = (1, 1)


def _train_one(model: EfficientNet) -> None:
    model.stages[4][1].project.bn.train()


def _forward(model: EfficientNet) -> None:
    conv = model.stages[4][1].project.conv
    conv.forward = lambda x: nn.Conv2d.forward(conv, x) + 1.0  # type: ignore[method-assign]


def _bias(model: EfficientNet) -> None:
    conv = model.stages[4][1].project.conv
    conv.bias = nn.Parameter(torch.ones(conv.out_channels))


def _stem(model: EfficientNet) -> None:
    model.stem = other().stem


def _stages(model: EfficientNet) -> None:
    model.stages = other().stages


def _head(model: EfficientNet) -> None:
    model.head = other().head


def _classifier(model: EfficientNet) -> None:
    model.classifier = nn.Linear(model.classifier.in_features, 1000, bias=False)


def _other_classifier(model: EfficientNet) -> None:
    model.classifier = nn.Sequential(model.classifier, nn.Tanh())


def _classifier_hook(model: EfficientNet) -> None:
    model.classifier.register_forward_hook(lambda _m, _i, y: y * 2)


def _classifier_bias(model: EfficientNet) -> None:
    model.classifier.bias = None


def _features(model: EfficientNet) -> None:
    features = model.forward_features
    model.forward_features = lambda x: features(x) * 2  # type: ignore[method-assign]


def _load(model: EfficientNet) -> None:
    model.load_state_dict(other().state_dict())


CHANGES: dict[str, tuple[Callable[[EfficientNet], None], bool]] = {
    # the change, and whether one op still computes the network
    "hook": (_hook, False),
    "hook on a stage": (_stage_hook, False),
    "another parameter": (_replace_weight, True),
    "other data": (_replace_data, True),
    "written in place": (_write_in_place, True),
    "statistics": (_statistics, True),
    "eps": (_epsilon, True),
    "another activation": (_activation, True),
    "another block": (_block, False),
    "one more module": (_appended, False),
    "stride": (_stride, True),
    "one BatchNorm in training": (_train_one, False),
    "a patched forward": (_forward, False),
    "a bias": (_bias, True),
    "another state dict": (_load, True),
    "another stem": (_stem, True),
    "other stages": (_stages, True),
    "another head": (_head, True),
    "another classifier": (_classifier, True),
    "a classifier of another kind": (_other_classifier, True),
    "hook on the classifier": (_classifier_hook, False),
    "no bias in the classifier": (_classifier_bias, True),
    "a patched method": (_features, False),
}


@pytest.mark.parametrize("calls_before", [1, 3])
@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_changes_take_effect(change: str, calls_before: int, calls: list[str]) -> None:
    """After one call a plan is new, after three it is bound to the tensors."""
    model, x = thousand(), torch.randn(2, 3, 40, 33)
    for _ in range(calls_before):
        before = model(x)
    assert len(calls) == calls_before
    apply, still_one = CHANGES[change]
    apply(model)
    reference = copy.deepcopy(model)  # before a BatchNorm in training mode changes its statistics
    after = model(x)
    assert len(calls) == calls_before + still_one
    torch.testing.assert_close(after, layer_by_layer(reference, x), rtol=1e-3, atol=1e-3)
    for _ in range(3):  # until it is bound again
        expected = layer_by_layer(reference, x)
        torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-3)
    if change != "hook":
        assert not torch.allclose(after, before, rtol=1e-3, atol=1e-3)


def test_gradients_are_taken_layer_by_layer(calls: list[str]) -> None:
    model, x = thousand(num_classes=3), torch.randn(1, 3, 32, 32)
    model(x).sum().backward()
    assert not calls
    assert all(p.grad is not None for p in model.parameters())


@torch.inference_mode()
def test_copies_share_no_cached_plan(calls: list[str]) -> None:
    model, x = thousand(), torch.randn(1, 3, 64, 64)
    logits = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(x), logits)
        other.stem.conv.weight.zero_()
        assert not torch.allclose(other(x), logits)
        torch.testing.assert_close(model(x), logits)
    assert len(calls) == 7


@torch.inference_mode()
def test_subclasses_run_their_own_methods(calls: list[str]) -> None:
    class Mine(EfficientNet):
        def forward_features(self, x: Tensor) -> Tensor:
            return super().forward_features(x) * 2

    model, x = thousand(), torch.randn(1, 3, 64, 64)
    mine = Mine(model.config, num_classes=1000).eval()
    mine.load_state_dict(model.state_dict())
    logits = mine(x)
    assert not calls
    torch.testing.assert_close(logits, mine.forward_head(model.forward_features(x) * 2))


@torch.inference_mode()
def test_flops_are_those_of_the_layers() -> None:
    model, x = thousand(), torch.randn(2, 3, 37, 50)
    with FlopCounterMode(display=False) as whole:
        model(x)
    with FlopCounterMode(display=False) as layers:
        layer_by_layer(model, x)
    assert whole.get_total_flops() == layers.get_total_flops() > 0
