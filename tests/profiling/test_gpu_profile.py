"""Profiles on a GPU, as far as they need none: statistics, waiting for the host, text, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import effkernels
from effkernels import EfficientNet, GpuProfile, dispatch
from effkernels.launch_timing import DeviceRates, Timed, TimedRun
from effkernels.profiling.gpu import (
    GpuProfileRow,
    _Stopwatch,
    middle,
    profile_launches,
    rates_of,
)
from networks import small_copy
from requirements import needs_cpu_kernels

SIZE = 64


class Timer:
    """Says that runs were queued where they are held up for ``needed`` seconds or more."""

    def __init__(self, needed: float = 0.0, runs: int = 1) -> None:
        self.needed, self.runs = needed, runs
        self.held_up: list[float] = []

    def time(self, timed: Timed | None, hold_up: float = 0.0) -> list[TimedRun]:
        if timed is not None:
            self.held_up.append(hold_up)
            return []
        queued = self.held_up[-1] >= self.needed
        return [TimedRun(1e-6, 1e-5, queued, (), ())] * self.runs

    def rates(self, probe: torch.Tensor) -> DeviceRates:
        return DeviceRates(memory=2.0, product=3.0, vector=5.0)


def test_the_device_is_held_up_until_the_host_is_done() -> None:
    timer, calls = Timer(needed=300e-6), []
    stopwatch = _Stopwatch(timer, lambda: calls.append(1))
    assert stopwatch("each launch").queued
    assert timer.held_up == pytest.approx([100e-6, 200e-6, 400e-6])
    assert stopwatch("whole").queued
    assert timer.held_up[-1] == pytest.approx(400e-6)
    assert len(calls) == 4


def test_a_host_that_is_never_done_ends() -> None:
    timer = Timer(needed=1.0)
    assert not _Stopwatch(timer, lambda: None)("apart").queued
    assert 0.05 <= timer.held_up[-1] <= 0.11
    assert len(timer.held_up) < 12


def test_timing_ends_where_the_model_fails() -> None:
    timer = Timer()

    def fail() -> None:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        _Stopwatch(timer, fail)("each launch")


@pytest.mark.parametrize("runs", [0, 2])
def test_another_number_of_networks(runs: int) -> None:
    with pytest.raises(ValueError, match=f"profile: the model runs {runs} networks and blocks"):
        _Stopwatch(Timer(runs=runs), lambda: None)("whole")


def test_the_middle_half() -> None:
    assert middle([3.0]) == 3.0
    assert middle([1.0, 2.0, 6.0]) == 3.0
    assert middle([100.0, 2.0, 3.0, 0.0]) == 2.5
    assert middle([9.0, 1.0, 2.0, 2.0, 3.0, 3.0, 0.0, 50.0]) == 2.5


def test_rates() -> None:
    x, timer = torch.zeros(1), Timer()
    assert rates_of(timer, x, torch.bfloat16, None, None) == (2.0, 3.0)
    assert rates_of(timer, x, torch.float32, None, None) == (2.0, 5.0)
    assert rates_of(timer, x, torch.float16, 7.0, 8.0) == (7.0, 8.0)


def row(layer: str, seconds: float, memory: float, arithmetic: float, launches: int = 1) -> Any:
    return GpuProfileRow(
        name=f"stages.0.0.{layer}" if layer else "head",
        op="mbconv" if layer else "pointwise_conv_bn_act_pool",
        layer=layer,
        kernel="pointwise_nhwc_fwd",
        launches=launches,
        seconds=seconds,
        low=seconds - 1e-6,
        high=seconds + 1e-6,
        bytes=2_000_000,
        flops=3_000_000_000,
        memory=memory,
        arithmetic=arithmetic,
    )


def profile(**changes: Any) -> GpuProfile:
    rows = (
        row("expand", 10e-6, 2e-6, 5e-6),
        row("project", 20e-6, 8e-6, 5e-6, launches=3),
        row("project", 30e-6, 2e-6, 1e-6),
        row("", 40e-6, 0.0, 0.0),
    )
    values: dict[str, Any] = {
        "model": "efficientnet_b0",
        "input_shape": (128, 3, 224, 224),
        "dtype": torch.bfloat16,
        "device": "NVIDIA H100 80GB HBM3",
        "memory_rate": 2.9e12,
        "flop_rate": 7.7e14,
        "runs": 20,
        "rows": rows,
        "event": 0.7e-6,
        "apart": 99e-6,
        "whole": 80e-6,
        "host": 200e-6,
        "queued": True,
        "around": "",
    }
    return GpuProfile(**(values | changes))


def test_as_text() -> None:
    found = profile()
    assert (found.seconds, found.bound) == pytest.approx((100e-6, 15e-6))
    text = str(found)
    assert text.startswith(
        "efficientnet_b0, 128x3x224x224 bfloat16 on NVIDIA H100 80GB HBM3: 6 kernels launched, 0.100 ms, bound "
        "0.015 ms (15 %)\nall of them without events between them: 0.099 ms; as they run without a profile: 0.080 ms; "
        "the host takes 0.200 ms for a call\nan event takes 0.7 us, which is subtracted; bounds from 2900 GB/s and "
        "770.0 TFLOP/s\n\n"
    )
    lines = [line.split() for line in text.splitlines()]
    assert ["project", "4", "50.0", "50", "%", "4.000", "6.000", "10.0", "20", "%"] in lines
    kernels = [line for line in lines if "pointwise_nhwc_fwd" in line]
    assert [line[0] for line in kernels] == [r.name for r in found.rows]
    assert kernels[1][2:4] == ["3", "20.0"]
    assert kernels[1][-1] == "19.0-21.0"
    assert kernels[3][-3:-1] == ["0.0", "-"]
    assert lines[-1][:3] == ["total", "6", "100.0"]


def test_what_a_reader_must_know() -> None:
    text = str(profile(queued=False, around="classifier (addmm on torch)"))
    assert "\nthe host was too slow: times may contain waiting for it\n" in text
    assert "\nnot timed: classifier (addmm on torch)\n" in text


def test_as_json() -> None:
    found = profile()
    document = found.as_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["device"] == "NVIDIA H100 80GB HBM3"
    assert document["launches"] == 6
    assert document["rows"][1] | {"bound": 8e-6, "launches": 3} == document["rows"][1]


def hooked(model: EfficientNet) -> EfficientNet:
    model.stages[2].register_forward_hook(lambda *_: None)
    return model


@needs_cpu_kernels
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: model.train(), r"training mode: call model\.eval\(\) first$"),
        (
            hooked,
            r"one call of network on the cuda backend: .*there are hooks; not on it: stem \(conv_bn_act on cpu\), "
            r"stages\.0\.0 \(mbconv on cpu\), stages\.1\.0 .* and \d+ more\. Pass an EfficientNet",
        ),
        (lambda model: model, r"not on it: stem \(conv_bn_act on cpu\)"),
        (lambda _: nn.Conv2d(3, 8, 3).eval(), "it calls no network of effkernels. Pass"),
    ],
    ids=["training", "hooks", "another backend", "not ours"],
)
def test_what_does_not_run_as_one_op(change: Callable[..., nn.Module], said: str) -> None:
    """In one line, with the parts that are not measured."""
    x = torch.zeros(1, 3, SIZE, SIZE)
    options: dict[str, Any] = {"device": "", "rates": (1.0, 1.0), "wait": lambda: None}
    with torch.no_grad(), pytest.raises(ValueError, match=f"^profile: .*{said}") as error:
        profile_launches(change(small_copy().eval()), x, Timer(), 1, **options)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(dispatch.backends()["cuda"].available, reason="there is a GPU")
def test_without_a_gpu() -> None:
    with FakeTensorMode():
        x = torch.empty(1, 3, SIZE, SIZE, device="cuda")
    with pytest.raises(ValueError, match="profile: the cuda backend is not available: "):
        effkernels.profile(nn.Identity(), x)


def test_bad_arguments() -> None:
    model, x = nn.Identity(), torch.zeros(1, 3, SIZE, SIZE)
    with pytest.raises(ValueError, match="profile: memory_rate must be above 0, got -1"):
        effkernels.profile(model, x, memory_rate=-1.0)
    with pytest.raises(ValueError, match="profile: flop_rate must be above 0, got nan"):
        effkernels.profile(model, x, flop_rate=float("nan"))
    with pytest.raises(ValueError, match="profile: flop_rate is for a GPU"):
        effkernels.profile(model, x, flop_rate=1e12)
    with pytest.raises(ValueError, match="profile: input is on the meta device"):
        effkernels.profile(model, x.to("meta"))
    with pytest.raises(ValueError, match="profile: input is on cpu, model on meta"):
        effkernels.profile(nn.Linear(1, 1, device="meta"), x)
