"""Networks among other keys: wrapped, compiled in parts, within other modules, beside other tensors."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import effkernels
from effkernels.checkpoints import export_state, load_into, resolve, save_checkpoint
from effkernels.checkpoints.files import unwrap
from effkernels.checkpoints.prefixes import without_inserted
from state_dicts import equal

FORMATS = ["effkernels", "timm", "torchvision", "lukemelas"]
State = dict[str, Tensor]


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


class TestReading:
    @pytest.mark.parametrize("fmt", FORMATS)
    @pytest.mark.parametrize(
        "prefix",
        [
            *("module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder."),
            *("module._orig_mod.", "module.model.net.", "student.features."),
        ],
    )
    def test_one_prefix_of_all_keys(self, b0_state, prefix, fmt):
        exported = export_state(b0_state, fmt)
        assert equal(unwrap(prefixed(prefix, exported), "test").state_dict, exported)

    @pytest.mark.parametrize("fmt", FORMATS)
    def test_other_keys_are_left_out_and_named(self, b0_state, fmt):
        exported = export_state(b0_state, fmt)
        saved = {
            "criterion.pos_weight": torch.zeros(5),
            **prefixed("model.", exported),
            "metric.total": torch.zeros(1),
        }
        match = r"360 entries under 'model\.'; 2 others are left out: criterion.pos_weight, metric"
        with pytest.warns(UserWarning, match=match):
            found = unwrap({"state_dict": saved, "epoch": 1}, "test")
        assert equal(found.state_dict, exported)

    def test_a_network_with_another_head(self, b0_state):
        headless = {k: v for k, v in b0_state.items() if not k.startswith("classifier.")}
        saved = {**prefixed("encoder.", headless), "head.weight": torch.zeros(5, 1280)}
        model = effkernels.create_model("efficientnet_b0", num_classes=5)
        with pytest.warns(UserWarning, match="1 others are left out: head.weight"):
            given = resolve(saved, variant="efficientnet_b0")
        load_into(model, given, reset_classifier=True)
        assert torch.equal(model.head.conv.weight, b0_state["head.conv.weight"])

    def test_an_unknown_key_under_the_prefix_is_a_loading_error(self, b0, b0_state):
        saved = prefixed("model.", {**b0_state, "extra": torch.zeros(1)})
        with pytest.raises(ValueError, match="1 unexpected: extra"):
            load_into(b0, resolve(saved, variant="efficientnet_b0"))

    def test_a_prefix_that_not_all_keys_share_stays(self, b0_state):
        mixed = {**b0_state, "module.extra": torch.zeros(1)}
        assert equal(unwrap(mixed, "test").state_dict, mixed)

    def test_two_networks_are_ambiguous(self, b0_state):
        both = {**prefixed("student.", b0_state), **prefixed("teacher.", b0_state)}
        with pytest.raises(ValueError, match=r"2 networks, under the prefixes 'student.' and 'te"):
            unwrap(both, "test")

    def test_the_larger_network_wins(self, b0_state):
        stem = {k: v for k, v in b0_state.items() if k.startswith("stem.")}
        saved = {**prefixed("probe.", stem), **prefixed("model.", b0_state)}
        with pytest.warns(UserWarning, match="are left out: probe.stem.bn.bias"):
            assert equal(unwrap(saved, "test").state_dict, b0_state)

    @pytest.mark.parametrize(
        ("plain", "average"), [("model.", "ema_model."), ("", "ema."), ("net.", "net_averaged.")]
    )
    def test_a_network_and_its_average(self, b0_state, plain, average):
        averaged = {key: value + 1 for key, value in b0_state.items()}
        both = {**prefixed(plain, b0_state), **prefixed(average, averaged)}
        with pytest.raises(ValueError, match=r"holds a network and its average.*use_ema=True"):
            unwrap(both, "test")
        for use_ema, expected in ((False, b0_state), (True, averaged)):
            with pytest.warns(UserWarning, match="360 others are left out"):
                assert equal(unwrap(both, "test", use_ema=use_ema).state_dict, expected)

    @pytest.mark.parametrize(
        "inserted", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]
    )
    def test_inserted_in_the_middle(self, b0_state, inserted):
        wrapped = {
            key.replace("stages.2.", f"stages.2.{inserted}."): value
            for key, value in b0_state.items()
        }
        assert wrapped.keys() != b0_state.keys()
        assert equal(unwrap(wrapped, "test").state_dict, b0_state)

    def test_nothing_is_removed_if_two_keys_would_become_equal(self):
        keys = ["a._orig_mod.b", "a.b"]
        assert without_inserted(keys) == {key: key for key in keys}

    def test_parts_of_names_are_not_wrappers(self):
        assert without_inserted(["my_orig_mod.a"]) == {"my_orig_mod.a": "my_orig_mod.a"}


class Classifier(nn.Module):
    """A module that holds the network, as training code often has it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.scale = nn.Parameter(torch.full((1,), 3.0))


def compiled_in_parts(model: effkernels.EfficientNet) -> nn.Module:
    model.stages[2] = torch.compile(model.stages[2], backend="eager")
    model.head = torch.compile(model.head, backend="eager")
    return model


class TestModels:
    """The same for models to load into and to save."""

    @pytest.mark.parametrize(
        "wrap", [compiled_in_parts, Classifier, lambda m: nn.DataParallel(Classifier(m))]
    )
    def test_load(self, b0, b0_state, wrap):
        module = wrap(b0)
        load_into(module, resolve(b0_state, variant="efficientnet_b0"))
        names = without_inserted(module.state_dict())
        loaded = {key: module.state_dict()[name] for key, name in names.items()}
        prefix = next(k for k in loaded if k.endswith("stem.conv.weight"))[:-16]
        for key, value in b0_state.items():
            assert torch.equal(loaded[prefix + key], value)
        assert all(p.item() == 3.0 for n, p in module.named_parameters() if n.endswith("scale"))

    def test_save_and_load_again(self, b0, b0_state, tmp_path: Path):
        load_into(b0, resolve(b0_state, variant="efficientnet_b0"))
        compiled_in_parts(b0)
        save_checkpoint(b0, tmp_path / "b0.pth")
        found = resolve(tmp_path / "b0.pth", variant="efficientnet_b0")
        assert equal(found.state_dict, b0_state)

    def test_a_plain_save_of_a_model_compiled_in_parts(self, b0, b0_state, tmp_path: Path):
        load_into(b0, resolve(b0_state, variant="efficientnet_b0"))
        torch.save(compiled_in_parts(b0).state_dict(), tmp_path / "b0.pth")
        model = effkernels.create_model("efficientnet_b0", weights=tmp_path / "b0.pth")
        assert equal(model.state_dict(), b0_state)

    def test_a_module_with_two_networks_is_ambiguous(self, b0, b0_state):
        before = b0.classifier.bias.clone()
        pair = nn.ModuleDict({"student": b0, "teacher": effkernels.create_model("efficientnet_b0")})
        with pytest.raises(ValueError, match=r"2 networks, under the prefixes 'student\.' and 'te"):
            load_into(pair, resolve(b0_state, variant="efficientnet_b0"))
        assert torch.equal(b0.classifier.bias, before)

    def test_the_outer_of_two_nested_networks_counts(self, b0, b0_state):
        teacher = b0.teacher = effkernels.create_model("efficientnet_b0")
        before = teacher.classifier.weight.clone()
        load_into(b0, resolve(b0_state, variant="efficientnet_b0"))
        assert torch.equal(b0.classifier.weight, b0_state["classifier.weight"])
        assert torch.equal(teacher.classifier.weight, before)
