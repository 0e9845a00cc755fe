"""The comparison of one kernel with two, as far as it can be tested without a GPU."""

from __future__ import annotations

import torch

from benchmarks import expanding
from effkernels.ops._define import defined
from specs.expand_depthwise_conv_bn_act import Expand


def test_blocks_of_b0_are_distinct_and_those_of_the_network() -> None:
    found = expanding.blocks(["efficientnet_b0"])
    assert len(found) == len(set(found)) == 9
    assert found[0].title == "16 > 96, 112 x 112, 3x3/2"
    assert found[-1].title == "112 > 672, 14 x 14, 5x5/2"


def test_arguments_are_those_of_the_op() -> None:
    block = Expand(1, 8, 24, (9, 7), 5, 2, padding=(2,) * 4)
    given = expanding.arguments(block, 2, "cpu", torch.float32)
    y, pooled = defined(expanding.OP).composed(*given)
    assert y.shape == (2, 24, 5, 4)
    assert y.isfinite().all()
    assert pooled.shape == (2, 24)
