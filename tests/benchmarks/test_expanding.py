"""The comparison of one kernel with two: what can be told without a GPU."""

from __future__ import annotations

import torch

from benchmarks import expanding
from effkernels.ops._define import defined


def test_blocks_of_b0_are_distinct_and_those_of_the_network() -> None:
    found = expanding.blocks(["efficientnet_b0"])
    assert len(found) == len(set(found)) == 9
    assert str(found[0]) == " 16 >   96, 3x3/2, 112x112"
    assert str(found[-1]) == "112 >  672, 5x5/2, 14x14"


def test_arguments_are_those_of_the_op() -> None:
    block = expanding.Block(8, 24, 5, 2, (9, 7))
    y, pooled = defined(expanding.OP).composed(*block.arguments(2, "cpu", torch.float32))
    assert y.shape == (2, 24, 5, 4)
    assert y.isfinite().all()
    assert pooled.shape == (2, 24)
