"""``effkernels explain``."""

from __future__ import annotations

import json

import pytest
import torch

import effkernels
from command_line import Run
from effkernels.analysis.cost import model_cost

ARGUMENTS = ["explain", "efficientnet_lite0", "--resolution", "64", "--batch-size", "2"]


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_text_equals_the_librarys(run: Run, backend: str) -> None:
    model = effkernels.efficientnet_lite0(dtype=torch.float16).eval()
    x = torch.zeros(2, 3, 64, 64, dtype=torch.float16)
    with effkernels.use_backend(backend):
        result = run(*ARGUMENTS, "--dtype", "float16", "--device", "cpu")
        expected = effkernels.explain(model, x)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{expected}\n"
    assert result.stdout.startswith("efficientnet_lite0, 2x3x64x64 float16 on cpu: ")
    assert "\nstages.3.1" in result.stdout


def test_as_json(run: Run) -> None:
    document = json.loads(run(*ARGUMENTS, "--device", "cpu", "--json").stdout)
    cost = model_cost("efficientnet_lite0", 64, batch_size=2)
    assert document["flops"] == sum(row["flops"] for row in document["rows"]) == cost.flops
    assert document["bytes"] == sum(row["bytes"] for row in document["rows"])
    assert (document["input_shape"], document["dtype"]) == ([2, 3, 64, 64], "float32")
    assert document["rows"][-1]["out_shape"] == [2, 1000]


def test_the_models_own_resolution(run: Run) -> None:
    first, *_ = run("explain", "efficientnet_lite1", "--device", "cpu").stdout.splitlines()
    assert "1x3x240x240 float32" in first


def test_a_baseline(run: Run) -> None:
    lines = run(
        "explain", "mobilenet_v1", "--resolution", "32", "--device", "cpu"
    ).stdout.splitlines()
    assert "there is no head" in lines[1]
    ops = {line.split()[0]: line.split()[1] for line in lines if line.startswith("stages.4.1")}
    assert ops == {
        "stages.4.1.depthwise": "depthwise_conv_bn_act",
        "stages.4.1.pointwise": "pointwise_conv_bn_act",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["efficientnet_b9"], "did you mean efficientnet_b"),
        (["efficientnet_b0", "--resolution", "0"], "--resolution must be at least 1, got 0"),
        (["efficientnet_b0", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["efficientnet_b0", "--device", "tpu"], "--device 'tpu'"),
        ([], "MODEL"),
    ],
)
def test_bad_arguments_are_one_line(run: Run, arguments: list[str], said: str) -> None:
    assert said in run("explain", *arguments).error
