"""``effkernels demo`` on its sample pictures with real weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import effkernels
from command_line import CATS, Run
from effkernels import dispatch
from effkernels.cli import demo
from effkernels.cli.demo import Comparison, compare, kernel_backends
from effkernels.reference import depthwise_conv_bn_act


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few passes, because times do not matter here."""
    monkeypatch.setattr(demo, "_WARM_UP", 1)
    monkeypatch.setattr(demo, "_FEWEST_REPEATS", 2)
    monkeypatch.setattr(demo, "_SECONDS", 0.0)


@pytest.mark.usefixtures("lite0_weights")
def test_names_a_cat_and_an_espresso(run: Run) -> None:
    result = run("demo", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    cat, coffee = document["pictures"]
    assert [cat["name"], coffee["name"]] == ["chelsea.jpg", "coffee.jpg"]
    assert {entry["label"] for entry in cat["top"][:3]} == CATS
    assert coffee["top"][0]["label"] == "espresso"
    assert coffee["top"][0]["probability"] > 0.9
    for picture in (cat, coffee):
        shares = [entry["probability"] for entry in picture["top"]]
        assert len(shares) == 5
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) <= 1.0
    assert document["device"] == "cpu"
    assert document["device_reason"] == "requested"


@pytest.mark.usefixtures("lite0_weights")
def test_text_says_what_was_compared_where_and_why(run: Run) -> None:
    result = run("demo", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.split())
    for said in (
        "efficientnet_lite0, weights imagenet, 224 x 224 pixels, float32",
        "cpu (requested)",
        "espresso",
        "median of",
        "forward passes of 2 pictures",
        "between the logits",
    ):
        assert said in text
    if kernel_backends(torch.device("cpu")):
        assert "cpu (the fastest available on cpu, with " in text
    else:
        for status in effkernels.backends().values():
            assert status.reason is None or status.reason in text
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


@pytest.mark.usefixtures("lite0_weights")
def test_bfloat16_names_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_FEWEST_REPEATS", 1)  # PyTorch's own convolutions take seconds here
    result = run("demo", "--device", "cpu", "--dtype", "bfloat16", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["dtype"] == "bfloat16"
    cat, coffee = document["pictures"]
    assert cat["top"][0]["label"] in CATS
    assert coffee["top"][0]["label"] == "espresso"


def test_unknown_classes_are_shown_by_index(run: Run, seven_classes: Path) -> None:
    result = run("demo", "--weights", seven_classes, "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    for picture in json.loads(result.stdout)["pictures"]:
        assert len(picture["top"]) == 5
        for entry in picture["top"]:
            assert entry["label"] == f"class {entry['index']}"


def test_a_ratio_comes_with_its_spread_or_not_at_all() -> None:
    calm = Comparison("cpu", "fused", "eager", 1.0, 2.0, 0.0, 1.0, 2, 9, (1.9, 2.0, 2.1))
    assert calm.speedup == 2.0
    assert demo._ratio(calm) == "2.00x  (1.90x to 2.10x in the middle half of the turns)"
    busy = replace(calm, eager_ms=41.8, ratios=(1.9, 41.8, 50.0))
    assert busy.speedup is None
    assert "not clear" in demo._ratio(busy)
    assert "41.8" not in demo._ratio(busy)


def test_without_kernels_only_folding_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFKERNELS_BACKEND", "torch")
    model = effkernels.create_model("efficientnet_lite0").eval()
    result = compare(model, torch.rand(2, 3, 64, 64))
    assert result.backend == "torch"
    assert result.fused.startswith("model.fuse()")
    assert result.pictures == 2
    assert result.repeats == 2
    assert result.fused_ms > 0
    assert result.eager_ms > 0
    assert result.max_difference < 1e-4 * result.largest_logit


@pytest.fixture
def cpu_kernels(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """A "cpu" backend with one kernel, which runs the reference and records its inputs."""
    seen: list[torch.Size] = []

    def kernel(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(x.shape)
        return depthwise_conv_bn_act(x, *rest)

    fake = dispatch.Backend("cpu", ("cpu",))
    monkeypatch.setitem(dispatch._BACKENDS, "cpu", fake)
    dispatch.register_kernel("cpu", "depthwise_conv_bn_act", kernel, lambda *_: None)
    return seen


def test_with_kernels_they_are_compared_with_the_torch_backend(
    cpu_kernels: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel_backends(torch.device("cpu")) == ["cpu"]
    assert kernel_backends(torch.device("cuda")) == [
        name
        for name, status in effkernels.backends().items()
        if name in ("cuda", "triton") and status.available and status.ops
    ]
    model = effkernels.create_model("efficientnet_lite0").eval()
    result = compare(model, torch.rand(1, 3, 32, 32))
    assert (result.backend, result.fused) == ("cpu", "the model as loaded, cpu kernels")
    assert cpu_kernels
    assert result.max_difference < 1e-4 * result.largest_logit
    monkeypatch.setenv("EFFKERNELS_BACKEND", "torch")
    assert kernel_backends(torch.device("cpu")) == []


def test_a_backend_that_is_forced_and_absent_is_one_line(
    run: Run, seven_classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        dispatch._BACKENDS, "cuda", dispatch.Backend("cuda", ("cuda",), "none for this test")
    )
    monkeypatch.setattr(dispatch._choice, "name", "cuda")
    assert "none for this test" in run("demo", "--weights", seven_classes, "--device", "cpu").error
