"""The tables of what published weights were trained with, compared with the publishers' packages."""

from __future__ import annotations

import re

import pytest

from effkernels.checkpoints import Semantics, parse_source, source_semantics
from effkernels.checkpoints.published import is_named
from effkernels.checkpoints.semantics import (
    config_semantics,
    format_semantics,
    semantics_from_json,
    twin,
)
from effkernels.preprocessing import IMAGENET_MEAN, INCEPTION_MEAN, Preprocessing
from model_names import LITE, TO_B7
from oracles import oracle

EVERY_MODEL = [*TO_B7, "efficientnet_b8", "efficientnet_l2", *LITE]


class TestPreprocessing:
    """BatchNorm and padding are compared in ``test_formats.py``, where the others' models are built anyway."""

    def test_rangilyu(self):
        ours = source_semantics("rangilyu/efficientnet_lite3")
        assert ours.same_outputs(Semantics(1e-3, 0.01, "symmetric"))
        assert ours.preprocessing == Preprocessing(
            (0.498,) * 3, (0.502,) * 3, 280, 280 / 312, "bicubic"
        )

    def test_every_weight_that_timm_lists(self):
        models = oracle("timm.models")
        listed = [
            name
            for name in oracle("timm").list_models("*efficientnet_*", pretrained=True)
            if re.fullmatch(r"(tf_)?efficientnet_(b\d|l2|lite\d)\.\w+", name)
        ]
        assert len(listed) > 50
        for name in listed:
            theirs = models.get_pretrained_cfg(name)
            if theirs.crop_mode != "center":
                with pytest.raises(ValueError, match="no weights tagged"):
                    source_semantics(f"timm/{name}")
                continue
            ours = source_semantics(f"timm/{name}").preprocessing
            assert ours == Preprocessing(
                theirs.mean,
                theirs.std,
                theirs.input_size[-1],
                theirs.crop_pct,
                theirs.interpolation,
            ), name

    @pytest.mark.parametrize("name", EVERY_MODEL)
    @pytest.mark.parametrize("prefix", ["", "tf_"])
    def test_untagged_is_the_default_of_timm(self, name, prefix):
        theirs = oracle("timm.models").get_pretrained_cfg(prefix + name)
        ours = source_semantics(f"timm/{prefix}{name}").preprocessing
        if not theirs.has_weights or theirs.crop_mode != "center":
            assert ours is None
        else:
            assert ours is not None
            assert (ours.size, ours.crop_fraction) == (theirs.input_size[-1], theirs.crop_pct)
            assert ours.mean == theirs.mean

    @pytest.mark.parametrize("name", TO_B7)
    def test_every_weight_of_torchvision(self, name):
        models = oracle("torchvision.models")
        weights = models.get_model_weights(name)
        for member in weights:
            theirs = member.transforms()
            ours = source_semantics(f"torchvision/{name}.{member.name}").preprocessing
            assert (ours.size, ours.resized) == (theirs.crop_size[0], theirs.resize_size[0])
            assert (ours.mean, ours.std) == (tuple(theirs.mean), tuple(theirs.std))
            assert ours.interpolation == theirs.interpolation.value
        default = source_semantics(f"torchvision/{name}.{weights.DEFAULT.name}")
        assert source_semantics(f"torchvision/{name}") == default

    def test_advprop(self):
        for source in (
            "timm/tf_efficientnet_b4.ap_in1k",
            "timm/tf_efficientnet_b4_ap",
            "lukemelas/efficientnet-b4.advprop",
            "lukemelas/efficientnet-b8",
        ):
            assert source_semantics(source).preprocessing.mean == INCEPTION_MEAN
        assert source_semantics("lukemelas/efficientnet-b4").preprocessing.mean == IMAGENET_MEAN

    def test_lite_of_lukemelas_is_googles(self):
        ours = source_semantics("lukemelas/efficientnet-lite0").preprocessing
        assert ours.mean == (127 / 255,) * 3
        assert ours.std == (128 / 255,) * 3
        assert (ours.size, ours.resized, ours.interpolation) == (224, 256, "bicubic")


class TestSources:
    @pytest.mark.parametrize(
        ("source", "name"),
        [
            ("timm/tf_efficientnet_b0", "timm/tf_efficientnet_b0"),
            ("timm/tf_efficientnet_b0.ns_jft_in1k", "timm/tf_efficientnet_b0.ns_jft_in1k"),
            ("timm/tf_efficientnet_b0_ns", "timm/tf_efficientnet_b0.ns_jft_in1k"),
            ("timm/tf_efficientnet_l2_ns_475", "timm/tf_efficientnet_l2.ns_jft_in1k_475"),
            ("geffnet/tf_efficientnet_b3_aa", "timm/tf_efficientnet_b3.aa_in1k"),
            ("lukemelas/efficientnet-b1", "lukemelas/efficientnet_b1"),
            ("torchvision/efficientnet_b1.IMAGENET1K_V2",) * 2,
        ],
    )
    def test_spellings(self, source, name):
        assert parse_source(source).name == name

    @pytest.mark.parametrize(
        "source",
        [
            "tf_efficientnet_b0",
            "efficientnet_b0",
            "keras/efficientnet_b0",
            "timm/resnet50",
            "timm/efficientnet_b1_pruned",
            "timm/tf_efficientnetv2_s",
            "torchvision/tf_efficientnet_b0",
            "",
        ],
    )
    def test_unknown(self, source):
        with pytest.raises(ValueError, match=r"unknown source .*'timm/tf_efficientnet_b0'"):
            parse_source(source)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("timm/tf_efficientnet_b0.own_in1k", "no weights tagged 'own_in1k'; known: in1k"),
            ("timm/tf_efficientnet_b0.ns_jft_in1k_475", "only L2 has"),
            ("timm/efficientnet_b9", "timm has no efficientnet_b9"),
            ("torchvision/efficientnet_b8", "torchvision has no efficientnet_b8, only"),
            ("torchvision/efficientnet_lite0", "torchvision has no efficientnet_lite0"),
            ("torchvision/efficientnet_b0.V9", "known: IMAGENET1K_V1"),
            ("rangilyu/efficientnet_b0", "rangilyu has no efficientnet_b0, only"),
            ("rangilyu/efficientnet_lite0.x", "has no tagged weights"),
            ("lukemelas/efficientnet-b0.x", "known: advprop"),
            ("lukemelas/efficientnet-lite0.x", "its weights have no tags"),
            ("timm/tf_efficientnet_b0_ns.in1k", "both a suffix and a tag"),
        ],
    )
    def test_never_published(self, source, message):
        with pytest.raises(ValueError, match=message):
            source_semantics(source)


class TestFormats:
    def test_timm_keys_are_ambiguous_and_the_error_says_what_to_pass(self):
        with pytest.raises(ValueError, match="same keys") as caught:
            format_semantics("timm", "efficientnet_b2")
        message = str(caught.value)
        assert "source='timm/efficientnet_b2' or source='timm/tf_efficientnet_b2'" in message

    @pytest.mark.parametrize(
        ("fmt", "variant", "expected"),
        [
            ("torchvision", "efficientnet_b4", (1e-5, 0.1, "symmetric")),
            ("torchvision", "efficientnet_b5", (1e-3, 0.01, "symmetric")),
            ("lukemelas", "efficientnet_b5", (1e-3, 0.01, "same")),
            ("lukemelas", "efficientnet_lite1", (1e-3, 0.01, "same")),
            ("lukemelas", "efficientnet(phi=2.5)", (1e-3, 0.01, "same")),
            ("rangilyu", "efficientnet_lite4", (1e-3, 0.01, "symmetric")),
            ("effkernels", "efficientnet_b0", (1e-3, 0.01, "symmetric")),
        ],
    )
    def test_other_formats_are_unambiguous(self, fmt, variant, expected):
        found = format_semantics(fmt, variant)
        assert (found.bn_eps, found.bn_momentum, found.padding) == expected

    def test_torchvision_of_a_custom_model(self):
        with pytest.raises(ValueError, match="source='torchvision/efficientnet_b0'"):
            format_semantics("torchvision", "efficientnet(phi=2.5)")


class TestTwins:
    @pytest.mark.parametrize(
        ("fmt", "variant", "semantics", "expected"),
        [
            ("timm", "efficientnet_b0", (1e-5, "symmetric"), "timm/efficientnet_b0"),
            ("timm", "efficientnet_b0", (1e-3, "same"), "timm/tf_efficientnet_b0"),
            ("timm", "efficientnet_b0", (1e-3, "symmetric"), None),
            ("timm", "efficientnet_lite0", (1e-3, "same"), "timm/tf_efficientnet_lite0"),
            ("torchvision", "efficientnet_b0", (1e-5, "symmetric"), "torchvision/efficientnet_b0"),
            ("torchvision", "efficientnet_b0", (1e-3, "symmetric"), None),
            ("torchvision", "efficientnet_b5", (1e-3, "symmetric"), "torchvision/efficientnet_b5"),
            ("torchvision", "efficientnet_b5", (1e-3, "same"), None),
            ("torchvision", "efficientnet_b8", (1e-3, "symmetric"), None),
            ("lukemelas", "efficientnet_b5", (1e-3, "same"), "lukemelas/efficientnet_b5"),
            ("timm", "efficientnet(phi=2.5)", (1e-3, "same"), None),
        ],
    )
    def test_table(self, fmt, variant, semantics, expected):
        eps, padding = semantics
        # Momentum, PyTorch's or TensorFlow's, does not change logits.
        for momentum in (0.1, 0.01):
            assert twin(fmt, variant, Semantics(eps, momentum, padding)) == expected


class TestHubConfiguration:
    @pytest.mark.parametrize("nested", [True, False])
    def test_fields_of_timm(self, nested):
        fields = {
            "input_size": [3, 300, 300],
            "crop_pct": 0.9,
            "crop_mode": "center",
            "interpolation": "bilinear",
            "mean": [0.1, 0.2, 0.3],
            "std": [0.5, 0.5, 0.5],
        }
        config = {"architecture": "tf_efficientnet_b0", "num_classes": 10}
        config |= {"pretrained_cfg": fields} if nested else fields
        source, semantics = config_semantics(config, "hub")
        assert source.name == "timm/tf_efficientnet_b0"
        assert semantics == Semantics(
            1e-3,
            0.1,
            "same",
            Preprocessing((0.1, 0.2, 0.3), (0.5, 0.5, 0.5), 300, 0.9, "bilinear"),
        )

    def test_absent_fields_come_from_the_tables(self):
        _, semantics = config_semantics({"architecture": "efficientnet_b2"}, "hub")
        assert semantics == source_semantics("timm/efficientnet_b2")

    def test_arguments_override_the_architecture(self):
        arguments = {"bn_eps": 0.01, "pad_type": "same", "bn_momentum": 0.2}
        config = {"architecture": "efficientnet_b0", "model_args": arguments}
        _, semantics = config_semantics(config, "hub")
        assert (semantics.bn_eps, semantics.padding, semantics.bn_momentum) == (0.01, "same", 0.2)

    def test_no_architecture(self):
        assert config_semantics({"model_type": "efficientnet"}, "hub") is None

    def test_another_architecture(self):
        with pytest.raises(ValueError, match="hub: its configuration names 'resnet50'"):
            config_semantics({"architecture": "resnet50"}, "hub")

    @pytest.mark.parametrize("odd", [{"crop_mode": "squash"}, {"input_size": [3, 224, 320]}])
    def test_transforms_that_do_not_exist_here(self, odd):
        with pytest.raises(ValueError, match="only square centre crops are supported"):
            config_semantics({"architecture": "efficientnet_b0", **odd}, "hub")


class TestSemantics:
    def test_json_round_trip(self):
        for name in EVERY_MODEL:
            semantics = source_semantics(f"timm/tf_{name}")
            assert semantics_from_json(semantics.to_json()) == semantics
        bare = Semantics(1e-3, 0.01, "same")
        assert semantics_from_json(bare.to_json()) == bare

    @pytest.mark.parametrize(
        "record",
        [
            {},
            {"bn_eps": 1e-3, "bn_momentum": 0.1, "padding": "full"},
            {"bn_eps": None, "bn_momentum": 0.1, "padding": "same"},
            {"bn_eps": 1e-3, "bn_momentum": 0.1, "padding": "same", "preprocessing": {"x": 1}},
        ],
    )
    def test_malformed_records(self, record):
        with pytest.raises(ValueError, match=r"malformed semantics|padding must be"):
            semantics_from_json(record)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0.0, 0.1, "same"), "bn_eps must be above 0"),
            ((float("nan"), 0.1, "same"), "bn_eps must be above 0"),
            ((1e-3, 1.5, "same"), "bn_momentum must lie in"),
            ((1e-3, 0.1, "valid"), "padding must be"),
        ],
    )
    def test_bad_values(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Semantics(*arguments)


def test_names():
    assert all(is_named(name) for name in EVERY_MODEL)
    assert not is_named("efficientnet(phi=2.5)")
