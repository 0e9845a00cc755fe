"""Python's time per forward pass: without kernels on a CPU, without waiting for kernels on a GPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from benchmarks.cases import catalogue, suites
from benchmarks.cases.host import HostCase
from benchmarks.contestants.ours import NO_KERNELS, without_images, without_kernels
from benchmarks.harness import worker
from benchmarks.harness.device import Device
from benchmarks.harness.making import make
from benchmarks.harness.worker import Worker
from effkernels import dispatch
from effkernels._backends.network_ops import HeldNetwork

CASE = HostCase("efficientnet_b0", 32)


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the backend that does nothing after each test."""
    monkeypatch.setattr(dispatch, "_BACKENDS", dict(dispatch._BACKENDS))


def test_every_layer_is_called_and_none_computed(tmp_path: Path) -> None:
    make(str(tmp_path), CASE)
    run = without_kernels(CASE, tmp_path).run
    called: Counter[str] = Counter()
    for name, kernel in dispatch._BACKENDS[NO_KERNELS].kernels.items():
        if not kernel.by_parts:

            def counted(*arguments: Any, name: str = name, fake: Any = kernel.run) -> Any:
                called[name] += 1
                return fake(*arguments)

            dispatch.register_kernel(NO_KERNELS, name, counted, kernel.rejects)
    with torch.inference_mode():
        logits = run()
    assert logits.shape == (1, 1000)
    # Two 1x1 convolutions per block, except in the first, which does not expand; and the head, which takes the means.
    assert called == {
        "conv_bn_act": 1,
        "depthwise_conv_bn_act_pool": 16,
        "squeeze_excite_gate": 16,
        "pointwise_conv_bn_act": 31,
        "pointwise_conv_bn_act_pool": 1,
    }


@pytest.mark.skipif(not dispatch.backends()["cpu"].available, reason="the cpu backend is not built")
def test_no_images_go_the_way_of_images(tmp_path: Path) -> None:
    make(str(tmp_path), CASE)
    run = without_images(CASE, tmp_path).run
    with mock.patch.object(HeldNetwork, "__call__", autospec=True) as held, torch.inference_mode():
        for _ in range(4):
            run()
    assert held.call_count == 2  # the first two make and bind the plan


def test_its_numbers_are_not_compared(tmp_path: Path) -> None:
    make(str(tmp_path), CASE)
    (suite,) = (suite for suite in suites() if suite.name == "host")
    names = ["effkernels-no-images", "effkernels-no-kernels"]
    assert [contestant.name for contestant in suite.contestants] == names
    for contestant in suite.contestants:
        prepared = Worker().prepare(contestant, CASE, str(tmp_path))
        assert (prepared.status, prepared.reason) == ("ok", None)
        assert contestant.ours
    assert catalogue()["host"].metric == "host"


def test_on_a_gpu_the_clock_waits_before_a_pass_and_not_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: seen.append("wait"))
    clock = worker.CLOCKS[HostCase("efficientnet_b0", 32, device=Device("cuda", "bfloat16")).clock]
    assert len(clock(lambda: seen.append("run"), 2)) == 2
    assert seen == ["wait", "run", "wait", "run"]
    (suite,) = (s for s in suites(device=Device("cuda", "bfloat16")) if s.name == "host")
    assert [c.name for c in suite.contestants] == ["effkernels", "eager-channels_last"]
