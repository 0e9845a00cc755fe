"""Loading changes all or nothing, and reports what does not fit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import effkernels
from effkernels.checkpoints import Checkpoint, Semantics, export_state, load_into
from effkernels.models import build, get_config
from randomise import randomise

SEMANTICS = Semantics(1e-3, 0.01, "symmetric")


def checkpoint(state_dict: dict[str, Tensor], fmt: str = "effkernels") -> Checkpoint:
    return Checkpoint(export_state(state_dict, fmt), fmt, SEMANTICS, "weights.pth")


def loaded(model: nn.Module, expected: dict[str, Tensor]) -> bool:
    found = model.state_dict()
    return all(torch.equal(value, expected[key]) for key, value in found.items())


def refused(model: nn.Module, given: Checkpoint, **options) -> str:
    """Load, expect an error that leaves the model unchanged, and return the message."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"weights\.pth") as caught:
        load_into(model, given, **options)
    assert loaded(model, before)
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestFits:
    @pytest.mark.parametrize("fmt", ["effkernels", "timm", "torchvision", "lukemelas"])
    def test_every_tensor_is_loaded_into_its_place(self, b0, b0_state, fmt):
        load_into(b0, checkpoint(b0_state, fmt))
        assert loaded(b0, b0_state)

    @pytest.mark.parametrize("fmt", ["timm", "lukemelas", "rangilyu"])
    def test_lite(self, fmt):
        source = randomise(effkernels.create_model("efficientnet_lite0"))
        target = effkernels.create_model("efficientnet_lite0")
        load_into(target, checkpoint(source.state_dict(), fmt))
        assert loaded(target, source.state_dict())

    def test_order_of_the_keys_does_not_matter(self, b0, b0_state):
        given = checkpoint(dict(reversed(b0_state.items())), "lukemelas")
        load_into(b0, given)
        assert loaded(b0, b0_state)

    def test_missing_num_batches_tracked_is_tolerated(self, b0, b0_state):
        old = {k: v for k, v in b0_state.items() if not k.endswith("num_batches_tracked")}
        load_into(b0, checkpoint(old, "timm"))
        assert loaded(b0, {**b0.state_dict(), **old})

    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            (torch.float16, torch.float32),
            (torch.bfloat16, torch.float64),
            (torch.float64, torch.bfloat16),
        ],
    )
    def test_values_are_cast_to_the_model(self, b0_state, given, wanted):
        cast = {k: v.to(given) if v.is_floating_point() else v for k, v in b0_state.items()}
        model = effkernels.create_model("efficientnet_b0", dtype=wanted)
        load_into(model, checkpoint(cast))
        for key, value in model.state_dict().items():
            assert torch.equal(value, cast[key].to(value.dtype))
        assert model.stem.conv.weight.dtype == wanted

    @pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
    def test_wrapped_models(self, b0, b0_state, wrap: Callable[[nn.Module], nn.Module]):
        load_into(wrap(b0), checkpoint(b0_state, "timm"))
        assert loaded(b0, b0_state)

    def test_sync_batchnorm(self, b0, b0_state):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(b0)
        load_into(model, checkpoint(b0_state, "timm"))
        assert loaded(model, b0_state)

    def test_parameters_stay_the_same_objects(self, b0, b0_state):
        before = dict(b0.named_parameters())
        load_into(b0, checkpoint(b0_state))
        assert all(parameter is before[name] for name, parameter in b0.named_parameters())
        assert all(parameter.requires_grad for parameter in b0.parameters())

    def test_the_checkpoint_is_copied_not_shared(self, b0, b0_state):
        given = checkpoint(b0_state)
        load_into(b0, given)
        with torch.no_grad():
            b0.classifier.weight.zero_()
        assert given.state_dict["classifier.weight"].abs().sum() > 0

    def test_fused_state_into_a_fused_model(self, b0, b0_state):
        load_into(b0, checkpoint(b0_state))
        target = effkernels.create_model("efficientnet_b0").eval().fuse()
        load_into(target, checkpoint(b0.eval().fuse().state_dict()))
        assert loaded(target, b0.fuse().state_dict())


class TestHeads:
    @pytest.mark.parametrize("fmt", ["effkernels", "timm", "torchvision", "lukemelas"])
    @pytest.mark.parametrize("out_indices", [None, (0, 2), (1,)])
    def test_features_only_leaves_the_rest_unused(self, b0_state, fmt, out_indices):
        model = effkernels.create_model(
            "efficientnet_b0", features_only=True, out_indices=out_indices
        )
        load_into(model, checkpoint(b0_state, fmt))
        assert loaded(model, b0_state)

    def test_no_classes(self, b0_state):
        model = effkernels.create_model("efficientnet_b0", num_classes=0)
        load_into(model, checkpoint(b0_state, "torchvision"))
        assert loaded(model, b0_state)

    @pytest.mark.parametrize("fmt", ["effkernels", "timm", "torchvision", "lukemelas"])
    def test_other_classes_are_refused_unless_requested(self, b0_state, fmt):
        model = effkernels.create_model("efficientnet_b0", num_classes=7)
        message = refused(model, checkpoint(b0_state, fmt))
        assert "1000 classes, the model 7: pass reset_classifier=True" in message
        fresh = {key: value.clone() for key, value in model.classifier.state_dict().items()}
        load_into(model, checkpoint(b0_state, fmt), reset_classifier=True)
        kept = {f"classifier.{key}": value for key, value in fresh.items()}
        assert loaded(model, {**b0_state, **kept})

    def test_reset_classifier_also_resets_if_the_classes_agree(self, b0, b0_state):
        fresh = b0.classifier.weight.clone()
        load_into(b0, checkpoint(b0_state), reset_classifier=True)
        assert torch.equal(b0.classifier.weight, fresh)
        assert torch.equal(b0.head.conv.weight, b0_state["head.conv.weight"])

    def test_headless_checkpoint(self, b0, b0_state):
        headless = {k: v for k, v in b0_state.items() if not k.startswith("classifier")}
        message = refused(b0, checkpoint(headless, "torchvision"))
        assert "2 missing: classifier.1.weight, classifier.1.bias" in message
        load_into(b0, checkpoint(headless, "torchvision"), reset_classifier=True)
        assert torch.equal(b0.head.conv.weight, b0_state["head.conv.weight"])

    def test_other_input_channels(self, b0_state):
        model = effkernels.create_model("efficientnet_b0", in_channels=1)
        message = refused(model, checkpoint(b0_state, "timm"))
        assert "takes 3 input channels, the model 1" in message
        assert "conv_stem.weight" in message


class TestMismatches:
    @pytest.mark.parametrize(
        ("fmt", "other"),
        [
            ("effkernels", "efficientnet_b1"),
            ("timm", "efficientnet_b2"),
            ("torchvision", "efficientnet_b4"),
            ("lukemelas", "efficientnet_b1"),
        ],
    )
    def test_another_variant_is_named(self, b0, fmt, other):
        given = effkernels.create_model(other, device="meta").state_dict()
        message = refused(b0, checkpoint(given, fmt))
        assert f"format {fmt}" in message
        assert f"looks like {other}, and the model is efficientnet_b0" in message

    def test_lite_into_b0(self, b0):
        given = effkernels.create_model("efficientnet_lite0").state_dict()
        message = refused(b0, checkpoint(given, "lukemelas"))
        assert "looks like efficientnet_lite0" in message
        assert "64 missing: _blocks.0._se_reduce.weight" in message
        assert "and 56 more" in message

    def test_two_variants_of_the_same_depth(self):
        b1 = effkernels.create_model("efficientnet_b1")
        given = effkernels.create_model("efficientnet_b2", device="meta").state_dict()
        message = refused(b1, checkpoint(given))
        assert "looks like efficientnet_b2, and the model is efficientnet_b1" in message
        assert "of the wrong shape: " in message

    def test_a_network_without_a_head_takes_no_head(self):
        """Its classifier says that nothing is left out; a deeper network's blocks do not belong to it either."""
        config = replace(get_config("mobilenet_v1"), stages=get_config("mobilenet_v1").stages[:2])
        model = build(config)
        state = model.state_dict()
        deeper = {"stages.2.0.depthwise.conv.weight": torch.zeros(128, 1, 3, 3)}
        for more in ({"head.conv.weight": torch.zeros(7, 128, 1, 1)}, deeper):
            assert "1 unexpected: " + next(iter(more)) in refused(
                model, checkpoint({**state, **more}, "effkernels")
            )

    def test_features_only_of_another_variant(self):
        model = effkernels.create_model("efficientnet_b1", features_only=True, out_indices=(0, 1))
        given = effkernels.create_model("efficientnet_b0").state_dict()
        assert "missing: stages.0.1." in refused(model, checkpoint(given))

    def test_missing_unexpected_and_wrong_shaped_are_listed_by_their_own_names(self, b0, b0_state):
        given = checkpoint(b0_state, "timm")
        state = given.state_dict
        del state["conv_head.weight"]
        state["blocks.9.9.conv_pw.weight"] = torch.zeros(1)
        state["global_step"] = torch.zeros(1)
        state["bn1.weight"] = torch.zeros(31)
        message = refused(b0, given)
        assert "weights.pth (format timm) does not fit the model" in message
        assert "1 missing: conv_head.weight" in message
        assert "2 unexpected: blocks.9.9.conv_pw.weight, global_step" in message
        assert "1 of the wrong shape: bn1.weight (31,) instead of (32,)" in message

    def test_long_lists_are_shortened(self, b0, b0_state):
        some = {k: v for k, v in b0_state.items() if not k.startswith("stages.3.")}
        message = refused(b0, checkpoint(some))
        assert message.count("stages.3.") == 8
        assert "and " in message
        assert "more" in message

    def test_unfused_checkpoint_into_a_fused_model(self, b0, b0_state):
        message = refused(b0.eval().fuse(), checkpoint(b0_state))
        assert "the model is fused: load first, then call fuse()" in message

    def test_foreign_model(self, b0_state):
        with pytest.raises(ValueError, match="is not a key of the effkernels format"):
            load_into(nn.Linear(2, 2), checkpoint(b0_state))

    def test_meta_device(self, b0_state):
        model = effkernels.create_model("efficientnet_b0", device="meta")
        with pytest.raises(ValueError, match=r"meta device.*to_empty"):
            load_into(model, checkpoint(b0_state))


class TestValues:
    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_not_finite(self, b0, b0_state, bad):
        b0_state["stages.4.1.project.bn.running_mean"][5] = bad
        b0_state["classifier.bias"][0] = bad
        message = refused(b0, checkpoint(b0_state, "timm"))
        assert "2 tensors contain NaN or inf" in message
        assert "stages.4.1.project.bn.running_mean, classifier.bias" in message

    def test_not_finite_in_unused_tensors(self, b0, b0_state):
        b0_state["classifier.bias"][0] = float("nan")
        load_into(b0, checkpoint(b0_state), reset_classifier=True)

    def test_overflow_of_a_narrower_dtype(self, b0_state):
        b0_state["stem.bn.running_var"][0] = 1e5
        half = effkernels.create_model("efficientnet_b0", dtype=torch.float16)
        message = refused(half, checkpoint(b0_state))
        assert "1 tensors overflow the model's dtype (float16): stem.bn.running_var" in message

    def test_negative_variance(self, b0, b0_state):
        b0_state["stem.bn.running_var"][0] = -0.5
        assert "hold negative variances: stem.bn.running_var" in refused(b0, checkpoint(b0_state))

    def test_integers(self, b0, b0_state):
        b0_state["stem.conv.weight"] = b0_state["stem.conv.weight"].to(torch.int8)
        assert "are not floating-point tensors: stem.conv.weight" in refused(
            b0, checkpoint(b0_state)
        )

    @pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
    def test_quantised(self, b0, b0_state):
        weight = b0_state["stem.conv.weight"]
        b0_state["stem.conv.weight"] = torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)
        assert "are not floating-point tensors: stem.conv.weight" in refused(
            b0, checkpoint(b0_state)
        )

    def test_eight_bit_floats(self, b0_state):
        model = effkernels.efficientnet_b0()
        b0_state["stem.conv.weight"] = b0_state["stem.conv.weight"].to(torch.float8_e4m3fn)
        load_into(model, checkpoint(b0_state))
        assert torch.equal(model.stem.conv.weight, b0_state["stem.conv.weight"].float())
        b0_state["stem.conv.weight"].view(torch.int8)[0, 0, 0, 0] = 0x7F  # NaN
        assert "contain NaN or inf: stem.conv.weight" in refused(model, checkpoint(b0_state))

    def test_tensors_without_storage(self, b0, b0_state):
        b0_state["stem.conv.weight"] = b0_state["stem.conv.weight"].to("meta")
        assert "stem.conv.weight" in refused(b0, checkpoint(b0_state))


def test_loading_logs_nothing(b0, b0_state, caplog):
    with caplog.at_level(logging.INFO):
        load_into(b0, checkpoint(b0_state))
    assert not caplog.records
