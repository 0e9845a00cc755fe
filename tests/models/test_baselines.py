"""Other networks as configurations, unscaled as their publishers have them, and scaled as in the paper's Table 3."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import effkernels
from effkernels.checkpoints import export_state, save_checkpoint
from effkernels.checkpoints.formats import detect_format
from effkernels.models import BASELINES, EfficientNet, build
from effkernels.models.baselines import MOBILENET_V1, RESNET50
from effkernels.scaling import TABLE_3, TABLE_7, ScaledRow, model_cost, scaled_rows
from networks import unfused
from oracles import oracle
from randomise import randomise
from specs.oracle_convolutions import OracleConvolutions
from specs.tolerance import assert_within_eager

SIZES = {
    "mobilenet_v1": (4_231_976, 568_740_352),
    "mobilenet_v2": (3_504_872, 300_774_272),
    "resnet50": (25_557_032, 4_089_184_256),
}


def theirs(name: str) -> nn.Module:
    if name == "mobilenet_v1":
        made: nn.Module = oracle("timm").create_model("mobilenetv1_100")
    else:
        made = getattr(oracle("torchvision.models"), name)()
    return made


@pytest.mark.parametrize("name", BASELINES)
class TestUnscaled:
    def test_size(self, name: str) -> None:
        cost = model_cost(name)
        assert (cost.params, cost.macs) == SIZES[name]
        with torch.device("meta"):
            assert sum(p.numel() for p in theirs(name).parameters()) == cost.params

    @torch.no_grad()
    def test_their_weights_give_their_logits(self, name: str) -> None:
        other = randomise(theirs(name).eval(), size=48).eval()
        state = other.state_dict()
        ours = effkernels.create_model(name, weights=state).eval()
        exported = export_state(ours.state_dict(), detect_format(state))
        assert exported.keys() == state.keys()
        assert all(torch.equal(value, state[key]) for key, value in exported.items())
        x = torch.randn(4, 3, 48, 71)
        with OracleConvolutions():
            exact = copy.deepcopy(other).double()(x.double())
        assert exact.std() > 1e-2
        eager = other(x.to(memory_format=torch.channels_last))
        with effkernels.use_backend("torch"):
            assert_within_eager(ours(x), eager, exact)
        assert_within_eager(ours(x), eager, exact)  # on the CPU's kernels, where they are built


def test_layers_of_mobilenet_v1_by_hand() -> None:
    """Table 1 of Howard et al.: stride and channels of each depthwise separable convolution, from 112 pixels on."""
    rows = [(1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)]
    rows += [(1, 512)] * 5 + [(2, 1024), (1, 1024)]
    side, channels, expected = 112, 32, [("stem", 27 * 32 * 112**2)]
    for stride, out in rows:
        side //= stride
        expected += [("depthwise", 9 * channels * side**2), ("pointwise", channels * out * side**2)]
        channels = out
    expected.append(("classifier", 1024 * 1000))
    assert [(layer.kind, layer.macs) for layer in model_cost("mobilenet_v1").layers] == expected


@torch.no_grad()
def test_images_in_any_layout_bytes_and_sixteen_bits(backend: str) -> None:
    small = [config.scale(depth=0.1, width=0.25) for config in (MOBILENET_V1, RESNET50)]
    for config in small:
        model = randomise(build(config, num_classes=7)).eval()
        pixels = torch.randint(256, (2, 3, 40, 37), dtype=torch.uint8)
        torch.testing.assert_close(model(pixels), unfused(model, pixels), rtol=1e-4, atol=1e-4)
        x = torch.randn(8, 3, 40, 37).bfloat16()
        half = model.bfloat16()
        with OracleConvolutions():
            exact = copy.deepcopy(half).double()(x.double())
        assert_within_eager(half(x), unfused(half, x), exact)
        torch.testing.assert_close(half(x.to(memory_format=torch.channels_last)), half(x))


def test_blocks_of_resnets_scale_in_both_widths() -> None:
    config = RESNET50.scale(width=1.4, depth=1.4)
    blocks = list(config.blocks())
    assert len(blocks) == 5 + 6 + 9 + 5
    assert [(b.inner_channels, b.out_channels) for b in blocks if b.index == 0] == [
        (88, 360),
        (176, 720),
        (360, 1432),
        (720, 2864),
    ]
    assert config.scaled_head_channels == 2864


def test_a_scaled_network_is_saved_and_loaded(tmp_path) -> None:
    """And what the record says of it is followed: eps 1e-5, not the package's 1e-3."""
    config = MOBILENET_V1.scale(width=0.25)
    model = randomise(build(config, num_classes=7))
    save_checkpoint(model, tmp_path / "saved.pth")
    again = build(config, num_classes=7, weights=tmp_path / "saved.pth")
    assert isinstance(again, EfficientNet)
    assert again.config == model.config
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())


def test_there_are_no_imagenet_weights() -> None:
    with pytest.raises(ValueError, match="no ImageNet weights are known for resnet50"):
        effkernels.create_model("resnet50", weights="imagenet", device="meta")


class TestTables:
    @pytest.mark.parametrize("row", scaled_rows(), ids=lambda r: str(r.published.factors))
    def test_counts_are_of_the_scaled_network(self, row: ScaledRow) -> None:
        """The paper prints tenths of 10^9: up to a fifth more than there are, or a tenth less."""
        if row.published.factors is None:
            assert row == ScaledRow(row.published)
            return
        depth, width, side = row.published.factors
        name = row.published.network.replace("MobileNetV", "mobilenet_v").replace("-", "")
        base = effkernels.models.get_config(
            {"EfficientNetB0": "efficientnet_b0", "ResNet50": "resnet50"}.get(name, name)
        )
        config = base.scale(depth=depth, width=width, resolution=side)
        if depth < 4.0:  # quickly built
            model = build(config, device="meta")
            assert row.params == sum(p.numel() for p in model.parameters())
        assert row.macs == model_cost(config).macs
        assert row.ratio == row.published.flops / row.macs
        assert row.published.flops + 0.05e9 > 0.9 * row.macs
        assert row.published.flops - 0.05e9 < 1.21 * row.macs

    def test_every_published_row_is_there(self) -> None:
        assert tuple(row.published for row in scaled_rows()) == (*TABLE_3, *TABLE_7)

    def test_four_times_the_macs_in_each_dimension(self) -> None:
        """What Table 3 compares: ResNet-50 scaled by one dimension has about the MACs of the others."""
        macs = {
            row.published.scaling: row.macs
            for row in scaled_rows()
            if row.published.network == "ResNet-50" and row.macs is not None
        }
        for dimension in ("depth", "width", "resolution"):
            assert macs[dimension] / macs["none"] == pytest.approx(4.0, rel=0.15)
