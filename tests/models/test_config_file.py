"""Configurations as JSON files, and configurations that are scaled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import effkernels
from archetypes import ARCHETYPES
from effkernels.models import (
    BASELINES,
    CONFIGS,
    EfficientNetConfig,
    config_from_json,
    config_to_json,
    read_config,
    write_config,
)
from effkernels.scaling import compound_scale, model_cost, scale_model, scaled_config

EVERY = {**CONFIGS, **ARCHETYPES, **BASELINES}


class TestFiles:
    @pytest.mark.parametrize("name", EVERY)
    def test_what_is_written_is_read(self, name: str, tmp_path: Path) -> None:
        path = tmp_path / "config.json"
        write_config(EVERY[name], path)
        assert read_config(path) == EVERY[name]

    def test_defaults_may_be_left_out(self) -> None:
        size = {"width": 1, "depth": 1.0, "resolution": 224, "dropout": 0.2}
        made = config_from_json({"name": "mine", "coefficients": size})
        assert made == EfficientNetConfig("mine", CONFIGS["efficientnet_b0"].coefficients)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"nme": "x"}, "the configuration has an unknown entry 'nme': did you mean name?"),
            ({"name": 3}, "name must be of type str, got 3"),
            ({"bn_eps": "0.1"}, "bn_eps must be of type float, got '0.1'"),
            ({"stem_stride": True}, "stem_stride must be of type int, got True"),
            ({"stem_stride": 2.5}, "stem_stride must be of type int, got 2.5"),
            ({"stem_pool": 2}, "stem_pool must be of type bool, got 2"),
            ({"bn_eps": 0.0}, "the configuration: bn_eps must be above 0"),
            ({"coefficients": {"width": 1.0}}, "coefficients lacks depth"),
            ({"coefficients": None}, "coefficients must be of type Coefficients"),
            ({"stages": [{"repeats": 0}]}, r"stages\[0\] lacks kernel_size"),
            ({"stages": [[]]}, r"stages\[0\] must be an object, got list"),
            ({"stages": []}, "stages must hold at least one stage"),
        ],
    )
    def test_anything_else_is_named(self, changes: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            config_from_json({**config_to_json(CONFIGS["efficientnet_b1"]), **changes})

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"name": "x"}', "\x80"])
    def test_a_file_of_something_else_is_named(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "config.json"
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=r"config\.json holds no configuration: "):
            read_config(path)


class TestScale:
    def test_one_dimension_at_a_time(self) -> None:
        base = CONFIGS["efficientnet_b2"]
        wide = base.scale(width=2.0)
        assert (wide.coefficients.width, wide.coefficients.depth) == (2.2, 1.2)
        assert (wide.resolution, wide.name) == (260, "efficientnet_b2(width=2)")
        deep = base.scale(depth=2.0, resolution=1.5)
        assert (deep.coefficients.width, deep.coefficients.depth) == (1.1, 2.4)
        assert (deep.resolution, deep.name) == (390, "efficientnet_b2(depth=2, resolution=1.5)")
        assert base.scale() == base

    @pytest.mark.parametrize("factor", ["depth", "width", "resolution"])
    def test_factors_are_above_0(self, factor: str) -> None:
        for value in (0.0, -1.0, float("nan")):
            with pytest.raises(ValueError, match=factor):
                CONFIGS["efficientnet_b0"].scale(**{factor: value})
        with pytest.raises(TypeError, match=f"{factor} must be a number"):
            CONFIGS["efficientnet_b0"].scale(**{factor: "2"})  # type: ignore[arg-type]


class TestAnyBaseAtAnyPhi:
    def test_growth_begins_at_the_bases_own_size(self) -> None:
        base = ARCHETYPES["fused"]  # of 32 pixels
        scaled = scale_model(base, phi=2.0)
        assert scaled.config.resolution == round(32 * 1.15**2)
        assert scaled.config.coefficients.depth == pytest.approx(1.44)
        assert scaled.cost == model_cost(scaled.config)
        assert scaled.realised_ratio == scaled.cost.macs / model_cost(base).macs
        assert scaled.nominal_ratio == pytest.approx((1.2 * 1.1**2 * 1.15**2) ** 2)

    @pytest.mark.parametrize("name", EVERY)
    def test_phi_0_is_the_base(self, name: str) -> None:
        scaled = scale_model(EVERY[name], phi=0.0)
        assert (
            replace(scaled.config, name=name, coefficients=EVERY[name].coefficients) == EVERY[name]
        )
        size, own = scaled.config.coefficients, EVERY[name].coefficients
        assert (size.depth, size.width, size.resolution) == (own.depth, own.width, own.resolution)
        assert scaled.realised_ratio == 1.0

    def test_phi_0_is_the_base_of_the_papers_b0(self) -> None:
        assert scale_model(phi=1.0).cost.params == 9_109_994
        assert scale_model(phi=1.0).config == scaled_config(compound_scale(1.0))

    def test_another_triple(self) -> None:
        with pytest.warns(UserWarning, match="is not about 2") as caught:
            scaled = scale_model("efficientnet_b1", phi=1.0, alpha=2.0, beta=1.0, gamma=1.5)
        assert caught[0].filename == __file__
        assert scaled.config.resolution == 360
        assert scaled.config.coefficients.depth == 2.2
        assert scaled.nominal_ratio == pytest.approx(4.5)

    def test_models_are_built_from_any_base(self) -> None:
        for base in ("efficientnet_lite1", ARCHETYPES["bottleneck"]):
            model = effkernels.efficientnet(phi=1.0, base=base, num_classes=10, device="meta")
            cost = scale_model(base, phi=1.0).cost
            assert model.config.resolution == cost.resolution[0]
            assert (
                sum(p.numel() for p in model.parameters())
                == model_cost(model.config, num_classes=10).params
            )
        assert effkernels.efficientnet(phi=0.0, device="meta").config.name == "efficientnet(phi=0)"
        with pytest.raises(ValueError, match="no model named 'resnet'"):
            effkernels.efficientnet(phi=0.0, base="resnet")

    def test_dropout_rises_from_the_bases_own(self) -> None:
        assert scale_model(phi=7.0).config.dropout == pytest.approx(0.5)
        assert scale_model("efficientnet_b2", phi=3.5).config.dropout == pytest.approx(0.4)
        assert scale_model("efficientnet_b7", phi=3.0).config.dropout == 0.5


def test_a_file_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_config(CONFIGS["efficientnet_b0"], path)
    record = json.loads(path.read_text())
    assert record["coefficients"]["resolution"] == 224
    assert record["stages"][1]["expand_ratio"] == 6
