"""A loaded model computes what the model that wrote the weights computes, but not with the semantics of another source.

Everything is in float64, where different orders of summation differ by less than 1e-9. Logits of all sources:
tests/models/test_oracles.py.
"""

from __future__ import annotations

import torch

import effkernels
from effkernels.checkpoints import source_semantics
from oracles import oracle
from randomise import randomise

SIZE = (67, 90)  # odd and even, which SAME padding pads differently


@torch.no_grad()
def test_only_the_right_semantics_give_the_logits():
    theirs = randomise(oracle("timm").create_model("efficientnet_b0").double()).eval()
    x = torch.randn(1, 3, *SIZE, dtype=torch.float64)
    expected = theirs(x)
    right = "timm/efficientnet_b0"
    for source in (right, "timm/tf_efficientnet_b0", "torchvision/efficientnet_b5"):
        read = source_semantics(source)
        ours = effkernels.create_model(
            "efficientnet_b0",
            weights=theirs.state_dict(),
            source=right,
            padding=read.padding,
            bn_eps=read.bn_eps,
            dtype=torch.float64,
        )
        error = (ours.eval()(x) - expected).abs().max() / expected.abs().max()
        assert (error < 1e-9) == (source == right), f"{source}: relative error {error:.3g}"


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
