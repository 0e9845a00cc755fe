"""The table of models: every name and size comes from it; and the fields of a row that no named model uses."""

from __future__ import annotations

import ast
import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import effkernels
from effkernels import checkpoints, scaling
from effkernels.checkpoints import parse_source, published
from effkernels.models import (
    CONFIGS,
    VARIANTS,
    EfficientNet,
    EfficientNetConfig,
    EfficientNetFeatures,
    StageConfig,
    build,
    named,
    variants,
)
from effkernels.models.scaling import Coefficients
from effkernels.nn import ConvBnAct
from effkernels.scaling import TABLE_2, model_cost
from randomise import randomise
from specs.tolerance import assert_within_eager

PACKAGE = Path(effkernels.__file__).parent


class TestOneTable:
    def test_every_list_of_models_comes_from_it(self):
        names = list(VARIANTS)
        assert names == [variant.config.name for variant in VARIANTS.values()]
        for listed in (
            effkernels.list_models(),
            list(scaling.NAMED),
            list(CONFIGS),
            named.__all__,
            list(checkpoints.PRETRAINED),
            [name for name in effkernels.__all__ if name in names],
        ):
            assert listed == names
        for name, variant in VARIANTS.items():
            assert scaling.NAMED[name] is variant.config.coefficients is CONFIGS[name].coefficients
            assert variant.config.dropout == variant.config.coefficients.dropout
            assert parse_source(variant.imagenet).variant == name
            assert published.is_named(name)
            assert getattr(effkernels, name).__name__ == name
        assert len({variant.title for variant in VARIANTS.values()}) == len(names)

    def test_published_weights_are_of_models_in_the_table(self):
        for table in (
            *(published._TIMM_TF_CROPS, published._TIMM_TF_ENLARGED, published._TIMM_TF_DEFAULTS),
            *(published._TIMM_OWN, published._TORCHVISION),
        ):
            assert set(table) <= set(VARIANTS)
        assert {row.group for row in TABLE_2} < set(VARIANTS)

    def test_a_row_without_a_function_is_noticed(self, monkeypatch):
        extra = replace(CONFIGS["efficientnet_b0"], name="efficientnet_b9")
        rows = {**VARIANTS, extra.name: replace(VARIANTS["efficientnet_b0"], config=extra)}
        monkeypatch.setattr(variants, "VARIANTS", rows)
        monkeypatch.setattr(effkernels.models, "named", named)  # the import below replaces it
        monkeypatch.delitem(sys.modules, "effkernels.models.named")
        importlib.import_module("effkernels.models.named")
        with pytest.raises(AttributeError, match="efficientnet_b9"):
            exec("from effkernels.models.named import *", {})

    def test_no_other_file_repeats_the_sizes(self):
        """The resolutions and multipliers of the largest models, as numbers in code."""
        own = {4.3, 5.3, 2.6, 3.1, 528, 672}
        for path in PACKAGE.rglob("*.py"):
            if path.name in ("variants.py", "published.py", "paper.py"):
                continue
            numbers = {
                node.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant) and isinstance(node.value, (int, float))
            }
            assert len(numbers & own) < 3, path


TINY = EfficientNetConfig(
    "tiny",
    Coefficients(1.0, 1.0, 32, 0.0),
    (StageConfig(1, 3, 1, 1, 8), StageConfig(2, 3, 2, 4, 12), StageConfig(1, 5, 2, 6, 20)),
    stem_channels=8,
    head_channels=40,
    channel_divisor=4,
)


def agrees_module_by_module(model: EfficientNet, x: torch.Tensor) -> None:
    """The fused path gives what the modules give one by one, by the tolerance rule."""
    fused = model(x)
    hooks = [m.register_forward_hook(lambda *_: None) for m in model.modules()]
    eager = model(x)
    exact = model.double()(x.double())
    for hook in hooks:
        hook.remove()
    assert_within_eager(fused, eager, exact)


class TestFields:
    @pytest.mark.parametrize("backend", ["torch", "cpu"])
    @pytest.mark.parametrize("stride", [1, 2, 4])
    @torch.no_grad()
    def test_stem_stride(self, stride, backend):
        if not effkernels.backends()[backend].available:
            pytest.skip(f"no {backend} backend")
        config = replace(TINY, stem_stride=stride)
        model = randomise(build(config, num_classes=10)).eval()
        x = torch.randn(2, 3, 37, 50)
        assert model.forward_features(x).shape[2:] == (
            -(-37 // (4 * stride)),
            -(-50 // (4 * stride)),
        )
        with effkernels.use_backend(backend):
            agrees_module_by_module(model, x)

    @pytest.mark.parametrize("stride", [1, 2, 4])
    def test_strides_of_feature_maps(self, stride):
        features = EfficientNetFeatures(replace(TINY, stem_stride=stride))
        assert features.reductions == (stride, 2 * stride, 4 * stride)
        side = 16 * stride
        maps = features(torch.randn(1, 3, side, side))
        assert [m.shape[-1] for m in maps] == [side // r for r in features.reductions]
        with pytest.raises(ValueError, match=rf"0 to 2 \(strides {stride} to {4 * stride}\)"):
            EfficientNetFeatures(replace(TINY, stem_stride=stride), out_indices=(3,))

    @pytest.mark.parametrize(
        ("divisor", "widths"), [(1, (8, 13, 22)), (4, (8, 12, 24)), (8, (8, 16, 24))]
    )
    def test_channel_divisor(self, divisor, widths):
        config = replace(
            TINY, channel_divisor=divisor, coefficients=Coefficients(1.1, 1.0, 32, 0.0)
        )
        found = {block.stage: block.out_channels for block in config.blocks()}
        assert tuple(found.values())[1:] == widths[1:]
        assert config.scaled_head_channels % divisor == 0

    @pytest.mark.parametrize("stride", [1, 2])
    def test_cost_counts_what_is_built(self, stride):
        config = replace(TINY, stem_stride=stride)
        model = build(config, device="meta")
        cost = model_cost(config)
        assert cost.params == sum(p.numel() for p in model.parameters())
        shape = model.forward_features(torch.empty(1, 3, 32, 32, device="meta")).shape
        assert cost.layers[-2].out_shape == tuple(shape[1:])

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"stem_pool": True}, "a max-pool follows the stem"),
            ({"head_channels": 0}, "there is no head"),
        ],
    )
    @torch.no_grad()
    def test_what_no_plan_has_runs_module_by_module(self, change, why):
        """These networks are of MBConv alone, which otherwise are one plan."""
        config = replace(TINY, **change)
        model = randomise(build(config, num_classes=10)).eval()
        x = torch.randn(8, 3, 37, 50)
        assert why in "".join(effkernels.explain(model, x).notes)
        first = model.stem(x) if model.stem_pool is None else model.stem_pool(model.stem(x))
        last = model.head(model.stages(first))
        torch.testing.assert_close(model.forward_features(x), last)
        agrees_module_by_module(model, x)

    def test_depthwise_separable_is_mbconv_that_does_not_expand(self):
        first = replace(TINY.stages[0], block="depthwise_separable")
        other = replace(TINY, stages=(first, *TINY.stages[1:]))
        a, b = (build(config, device="meta").state_dict() for config in (TINY, other))
        assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}
        assert [block.block for block in other.blocks()][:2] == ["depthwise_separable", "mbconv"]

    def test_the_stem_has_the_fields_of_its_row(self):
        stem = build(replace(TINY, stem_channels=16, stem_stride=4), device="meta").stem
        assert isinstance(stem, ConvBnAct)
        assert (stem.conv.out_channels, stem.conv.stride) == (16, (4, 4))


class TestBadRows:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"block": "resnet"}, "block must be one of mbconv, .*, got 'resnet'"),
            ({"block": "depthwise_separable", "expand_ratio": 6}, "has expand_ratio=1, got 6"),
            ({"block": "separable_conv", "expand_ratio": 6}, "has expand_ratio=1, got 6"),
            ({"block": "separable_conv", "se_ratio": 0.25}, "has se_ratio=0, got 0.25"),
            ({"repeats": 0}, "repeats must be at least 1"),
            ({"stride": -1}, "stride must be at least 1"),
            ({"se_ratio": -0.5}, "se_ratio must be at least 0"),
        ],
    )
    def test_stage(self, change, message):
        with pytest.raises(ValueError, match=message):
            replace(TINY.stages[0], **change)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"stem_stride": 0}, "stem_stride must be at least 1"),
            ({"channel_divisor": 0}, "channel_divisor must be at least 1"),
            ({"stem_channels": 0}, "stem_channels must be at least 1"),
            ({"head_channels": -1}, "head_channels must be at least 0"),
            ({"stem_kernel_size": 0}, "stem_kernel_size must be at least 1"),
            ({"stem_pool": True, "padding": "same"}, "stem_pool pads symmetrically: padding must"),
            ({"stages": ()}, "stages must hold at least one"),
        ],
    )
    def test_model(self, change, message):
        with pytest.raises(ValueError, match=message):
            replace(TINY, **change)
