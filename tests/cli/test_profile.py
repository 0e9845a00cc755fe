"""``effkernels profile``."""

from __future__ import annotations

import json
import re

import pytest
import torch

import effkernels
from command_line import Run
from requirements import needs_cpu_kernels

ARGUMENTS = [
    "profile",
    "efficientnet_lite0",
    "--resolution",
    "64",
    "--runs",
    "1",
    "--device",
    "cpu",
]


@needs_cpu_kernels
def test_text(run: Run) -> None:
    result = run(*ARGUMENTS, "--dtype", "bfloat16", "--batch-size", "2")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("efficientnet_lite0, 2x3x64x64 bfloat16 on ")
    assert "\nstages.3.1 " in result.stdout


@needs_cpu_kernels
def test_as_json_on_some_threads(run: Run) -> None:
    before = torch.get_num_threads()
    for threads in (1, 2):
        document = json.loads(run(*ARGUMENTS, "--threads", str(threads), "--json").stdout)
        assert document["machine"]["threads"] == threads
        assert document["rows"][-1]["out_shape"] == [1, 1000]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "cuda"], "--device 'cuda': torch .*; use --device cpu"),
        (["--bandwidth", "3000"], "--bandwidth is for --device cuda"),
        (["--device", "cpu", "--tflops", "700"], "--tflops is for --device cuda"),
        (["--tflops", "-1"], "--tflops must be above 0, got -1.0"),
        (["--device", "xpu"], "only cpu and cuda devices"),
    ],
    ids=str,
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_a_gpu_is_for(run: Run, options: list[str], said: str) -> None:
    assert re.search(said, run(*ARGUMENTS, *options).error)


@pytest.mark.gpu
def test_on_a_gpu(run: Run) -> None:
    if effkernels.backends()["cuda"].reason is not None:
        pytest.skip("no cuda backend")
    result = run(
        *ARGUMENTS, "--dtype", "bfloat16", "--device", "cuda", "--bandwidth", "2900", "--json"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document["device"] == torch.cuda.get_device_name()
    assert document["memory_rate"] == 2.9e12
    assert document["rows"][0]["name"] == "stem"
    refused = run("profile", "efficientnet_lite0", "--device", "cuda", "--threads", "2")
    assert "--threads is for --device cpu, not cuda" in refused.error


@pytest.mark.parametrize("option", ["--resolution", "--batch-size", "--threads", "--runs"])
def test_bad_arguments_are_one_line(run: Run, option: str) -> None:
    result = run("profile", "efficientnet_b0", option, "0")
    assert f"{option} must be at least 1, got 0" in result.error
