"""timm's data pipeline uses our models' own preprocessing."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch

import effkernels
from effkernels import Preprocessing
from effkernels.data import sample_pictures
from effkernels.models import VARIANTS, build
from oracles import oracle

SOURCES = [
    "timm/tf_efficientnet_b4.ns_jft_in1k",
    "timm/tf_efficientnet_b0.ap_in1k",
    "timm/efficientnet_b2.ra_in1k",
    "torchvision/efficientnet_b1.IMAGENET1K_V2",
    "rangilyu/efficientnet_lite3",
    "timm/tf_efficientnet_lite4.in1k",
]


def with_preprocessing(source: str) -> effkernels.EfficientNet:
    from effkernels.checkpoints import parse_source, source_semantics

    model = effkernels.create_model(parse_source(source).variant, device="meta")
    model.preprocessing = source_semantics(source).preprocessing
    return model


@pytest.mark.parametrize("name", VARIANTS)
def test_resolve_data_config_of_fresh_models(name):
    timm = oracle("timm")
    config = VARIANTS[name].config
    model = build(
        replace(config, stages=config.stages[:1]), device="meta"
    )  # its preprocessing is that of all stages
    found = timm.data.resolve_data_config({}, model=model)
    ours = model.preprocessing
    assert found == {
        "input_size": (3, ours.size, ours.size),
        "interpolation": ours.interpolation,
        "mean": ours.mean,
        "std": ours.std,
        "crop_pct": ours.crop_fraction,
        "crop_mode": "center",
    }
    assert ours.size == VARIANTS[name].config.resolution
    assert timm.data.resolve_model_data_config(model) == found


@pytest.mark.parametrize("source", SOURCES)
def test_timms_transform_is_ours(source):
    timm = oracle("timm")
    pil = pytest.importorskip("PIL.Image")
    model = with_preprocessing(source)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    with sample_pictures() as paths:
        for path in paths:
            ours = model.preprocessing(path)
            theirs = transform(pil.open(path).convert("RGB"))
            torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-6)


def test_changed_preprocessing_is_used():
    model = effkernels.efficientnet_b0(device="meta", num_classes=7, in_channels=4)
    assert model.pretrained_cfg == model.default_cfg
    assert model.pretrained_cfg["num_classes"] == 7
    assert model.pretrained_cfg["input_size"] == (4, 224, 224)
    model.preprocessing = Preprocessing(size=64, interpolation="bilinear")
    model.reset_classifier(3)
    found = model.pretrained_cfg
    assert (found["input_size"], found["interpolation"]) == ((4, 64, 64), "bilinear")
    assert found["num_classes"] == 3
    features = effkernels.efficientnet_b0(device="meta", features_only=True)
    assert features.pretrained_cfg["num_classes"] == 0
    assert "pretrained_cfg" not in vars(pickle.loads(pickle.dumps(features)))


def test_a_model_without_preprocessing_is_an_error_not_timms_defaults():
    timm = oracle("timm")
    model = effkernels.efficientnet_b0(device="meta")
    model.preprocessing = None
    with pytest.raises(ValueError, match=r"model\.preprocessing is NoneType.*set it"):
        timm.data.resolve_data_config({}, model=model)
