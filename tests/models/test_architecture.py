"""The architectures compared with published tables: parameters, state dicts, MACs, shapes."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import effkernels

# name: parameters, state-dict entries, trainable tensors, BN layers. From torchvision, timm and the block tables.
TABLE = {
    "efficientnet_b0": (5_288_548, 360, 213, 49),
    "efficientnet_b1": (7_794_184, 508, 301, 69),
    "efficientnet_b2": (9_109_994, 508, 301, 69),
    "efficientnet_b3": (12_233_232, 574, 340, 78),
    "efficientnet_b4": (19_341_616, 706, 418, 96),
    "efficientnet_b5": (30_389_784, 854, 506, 116),
    "efficientnet_b6": (43_040_704, 986, 584, 134),
    "efficientnet_b7": (66_347_960, 1200, 711, 163),
    "efficientnet_b8": (87_413_142, 1332, 789, 181),
    "efficientnet_l2": (480_309_308, 1914, 1134, 260),
    "efficientnet_lite0": (4_652_008, None, None, None),
    "efficientnet_lite1": (5_416_680, None, None, None),
    "efficientnet_lite2": (6_092_072, None, None, None),
    "efficientnet_lite3": (8_197_096, None, None, None),
    "efficientnet_lite4": (13_006_568, None, None, None),
}


def on_meta(name: str, **options: object) -> effkernels.EfficientNet:
    return effkernels.create_model(name, device="meta", **options)


def test_the_table_is_complete() -> None:
    assert effkernels.list_models() == list(TABLE)
    for name in TABLE:
        assert getattr(effkernels, name).__name__ == name
    assert effkernels.list_models("*lite*") == [n for n in TABLE if "lite" in n]


@pytest.mark.parametrize("name", TABLE)
def test_counts(name: str) -> None:
    parameters, entries, trainable, norms = TABLE[name]
    model = on_meta(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    if entries is not None:
        assert len(model.state_dict()) == entries
        assert sum(1 for p in model.parameters() if p.requires_grad) == trainable
        found = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert len(found) == norms
        assert {(m.eps, m.momentum) for m in found} == {(1e-3, 0.01)}


# Those of the others: test_published_counts of tests/analysis/test_cost.py for the cost model, which its
# test_real_network_has_these_parameters_and_flops compares with each network.
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("name", "giga"), [("efficientnet_b0", 0.3858), ("efficientnet_lite0", 0.3850)]
)
def test_macs(name: str, giga: float, fused: bool) -> None:
    # Fused: the ops, in eval mode. Not fused: in training mode, module by module.
    model = on_meta(name, drop_path=0.0).train(not fused)
    size = model.config.resolution
    with FlopCounterMode(display=False, depth=0) as counter, torch.no_grad():
        model(torch.empty(1, 3, size, size, device="meta"))
    macs = counter.get_total_flops() / 2 / 1e9
    assert round(macs, 4 if name.endswith("b0") else 3) == giga


@pytest.mark.parametrize(("phi", "parameters"), [(0.5, 8_441_486), (1, 9_109_994), (7, 68_741_810)])
def test_scaled_by_the_formula(phi: float, parameters: int) -> None:
    model = effkernels.efficientnet(phi=phi, device="meta")
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.config.name == f"efficientnet(phi={phi:g})"


def test_efficientnet_of_negative_phi() -> None:
    with pytest.raises(ValueError, match="phi"):
        effkernels.efficientnet(phi=-1.0)


def test_feature_maps() -> None:
    model = on_meta("efficientnet_b0", features_only=True)
    maps = model(torch.empty(2, 3, 224, 192, device="meta"))
    assert [m.shape for m in maps] == [
        (2, c, 224 // r, 192 // r) for c, r in zip(model.channels, model.reductions, strict=True)
    ]
    assert model.channels == (16, 24, 40, 112, 320)
    assert model.reductions == (2, 4, 8, 16, 32)


def test_feature_extractor_builds_only_what_it_returns() -> None:
    model = on_meta("efficientnet_b4", features_only=True, out_indices=(2, -5))
    assert len(model.stages) == 3
    assert (model.channels, model.reductions) == ((56, 24), (8, 2))


@pytest.mark.parametrize("indices", [(5,), (-6,), ()])
def test_out_indices_out_of_range(indices: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="out_indices must be some of 0 to 4"):
        effkernels.efficientnet_b0(features_only=True, out_indices=indices)


def test_features_are_those_of_the_classifier() -> None:
    model = effkernels.efficientnet_b0().eval()
    backbone = effkernels.efficientnet_b0(features_only=True).eval()
    trunk = {k: v for k, v in model.state_dict().items() if k.startswith(("stem", "stages"))}
    assert backbone.load_state_dict(trunk).missing_keys == []
    x = torch.randn(1, 3, 40, 56)
    last = backbone(x)[-1]
    torch.testing.assert_close(model.head(last), model.forward_features(x))


def test_defaults_of_the_paper() -> None:
    model = effkernels.efficientnet_b5(device="meta")
    assert model.dropout.p == 0.4
    rates = [block.drop_path.rate for stage in model.stages for block in stage]
    assert rates == pytest.approx([0.2 * i / 39 for i in range(39)])
    assert model.training


def test_tensorflow_initialisation() -> None:
    model = effkernels.efficientnet_b0()
    block = model.stages[3][1]
    cases = {
        "dense": (model.stages[6][0].project.conv.weight, (2 / 320) ** 0.5),
        "depthwise": (block.depthwise.conv.weight, (2 / 9) ** 0.5),
        "squeeze": (model.stages[6][0].squeeze_excite.expand.weight, (2 / 1152) ** 0.5),
    }
    for name, (weight, std) in cases.items():
        assert weight.std().item() == pytest.approx(std, rel=0.1), name
        assert abs(weight.mean().item()) < 0.1 * std, name
    assert model.classifier.weight.abs().max().item() == pytest.approx(1000**-0.5, rel=1e-2)
    assert not model.classifier.bias.any()
    assert not block.squeeze_excite.reduce.bias.any()
