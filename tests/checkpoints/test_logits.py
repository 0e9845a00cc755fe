"""A model loaded from any format computes what the model that wrote the weights computes.

Everything is in float64, where different orders of summation differ by less than 1e-9.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import effkernels
from effkernels.checkpoints import source_semantics
from oracles import oracle
from randomise import randomise

# With and without squeeze-excitation; tests/models has all other variants.
MODELS = ["efficientnet_b0", "efficientnet_lite0"]
SIZE = (67, 90)  # odd and even, which SAME padding pads differently


@torch.no_grad()
def assert_same_logits(ours: nn.Module, theirs: nn.Module, size: tuple[int, int] = SIZE) -> None:
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    found, expected = ours.eval()(x), theirs.eval()(x)
    assert torch.isfinite(expected).all()
    assert expected.std() > 0
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < 1e-9, f"relative error {error:.3g}"


def load(name: str, theirs: nn.Module, source: str | None = None) -> nn.Module:
    return effkernels.create_model(
        name, weights=theirs.state_dict(), source=source, dtype=torch.float64
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("prefix", ["", "tf_"])
def test_timm(name, prefix):
    theirs = randomise(oracle("timm").create_model(prefix + name).double())
    assert_same_logits(load(name, theirs, f"timm/{prefix}{name}"), theirs)


def test_torchvision():
    name = "efficientnet_b0"
    theirs = randomise(oracle("torchvision.models").efficientnet_b0().double())
    assert_same_logits(load(name, theirs), theirs)


def test_lukemelas():
    lukemelas = oracle("efficientnet_pytorch")
    # Its padding is fixed at construction, for the given size.
    theirs = lukemelas.EfficientNet.from_name("efficientnet-b0", image_size=SIZE)
    assert_same_logits(load("efficientnet_b0", randomise(theirs.double())), theirs)


def test_wrong_semantics_are_detected():
    theirs = randomise(oracle("timm").create_model("efficientnet_b0").double())
    for source in ("timm/tf_efficientnet_b0", "torchvision/efficientnet_b5"):
        wrong = source_semantics(source)
        ours = effkernels.create_model(
            "efficientnet_b0",
            weights=theirs.state_dict(),
            source="timm/efficientnet_b0",
            padding=wrong.padding,
            bn_eps=wrong.bn_eps,
            dtype=torch.float64,
        )
        with pytest.raises(AssertionError, match=r"relative error \d"):
            assert_same_logits(ours, theirs)


def test_features_of_timm():
    theirs = randomise(oracle("timm").create_model("tf_efficientnet_b0").double()).eval()
    options = {"weights": theirs.state_dict(), "source": "timm/tf_efficientnet_b0"}
    ours = effkernels.create_model(
        "efficientnet_b0", features_only=True, out_indices=(1, 3), dtype=torch.float64, **options
    ).eval()
    x = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs.forward_intermediates(x, indices=[1, 3], intermediates_only=True)
        found = ours(x)
    assert len(found) == 2
    for mine, map_ in zip(found, expected, strict=True):
        assert torch.allclose(mine, map_, rtol=1e-9, atol=1e-9 * map_.abs().max().item())
