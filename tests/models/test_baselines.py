"""Other networks as configurations, unscaled as their publishers have them, and scaled as in the paper's Table 3."""

from __future__ import annotations

import copy

import pytest
import torch

from effkernels.checkpoints import export_state
from effkernels.checkpoints.formats import detect_format
from effkernels.models import build
from effkernels.models.baselines import MOBILENET_V2
from effkernels.scaling import TABLE_3, model_cost
from oracles import oracle
from randomise import randomise
from specs.oracle_convolutions import OracleConvolutions
from specs.tolerance import assert_within_eager


class TestMobileNetV2:
    def test_size(self) -> None:
        cost = model_cost(MOBILENET_V2)
        assert cost.params == 3_504_872
        assert cost.macs == 300_774_272

    @torch.no_grad()
    def test_torchvisions_weights_give_its_logits(self, backend: str) -> None:
        theirs = oracle("torchvision.models").mobilenet_v2()
        theirs = randomise(theirs.eval(), size=48).eval()
        state = theirs.state_dict()
        assert detect_format(state) == "torchvision_mobilenet"
        ours = build(MOBILENET_V2, weights=state).eval()
        exported = export_state(ours.state_dict(), "torchvision_mobilenet")
        assert exported.keys() == state.keys()
        assert all(torch.equal(value, state[key]) for key, value in exported.items())
        x = torch.randn(8, 3, 48, 55)
        with OracleConvolutions():
            exact = copy.deepcopy(theirs).double()(x.double())
        assert exact.std() > 1e-2
        assert_within_eager(ours(x), theirs(x.to(memory_format=torch.channels_last)), exact)

    @pytest.mark.parametrize(
        "row",
        [row for row in TABLE_3 if row.network == "MobileNetV2" and row.factors],
        ids=lambda row: row.scaling,
    )
    def test_scaled_as_in_table_3(self, row) -> None:
        """The paper prints tenths of 10^9, and counts up to a fifth more than there are."""
        depth, width, side = row.factors
        config = MOBILENET_V2.scale(depth=depth, width=width, resolution=side)
        cost = model_cost(config)
        assert cost.params == sum(p.numel() for p in build(config, device="meta").parameters())
        assert row.flops + 0.05e9 > cost.macs
        assert row.flops - 0.05e9 < 1.2 * cost.macs
