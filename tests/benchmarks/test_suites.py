"""The measured shapes come from the library's own configurations."""

from __future__ import annotations

import pytest

import effkernels
from benchmarks import ROOT, _root_last
from benchmarks.cases import Scope, depthwise, pointwise, suites
from benchmarks.cases.growth import resolutions
from benchmarks.cases.layers import LayerCase, distinct
from benchmarks.cases.networks import case as network
from benchmarks.harness import machine, worker
from benchmarks.harness.device import CPU, Device
from benchmarks.harness.machine import Limits
from effkernels.nn import ConvBnAct
from specs.work import Work

HERE = Scope(full=False, device=CPU)


def test_depthwise_shapes_are_those_of_the_network() -> None:
    model = effkernels.efficientnet_b0(device="meta")
    layers = [m for m in model.modules() if isinstance(m, ConvBnAct) and m.depthwise]
    real = {(m.conv.in_channels, m.conv.kernel_size[0], m.conv.stride[0]) for m in layers}
    cases = distinct(depthwise.shapes(["efficientnet_b0"]), HERE, LayerCase)
    shapes = [case.shape for case in cases]
    assert {(s.channels, s.kernel[0], s.stride[0]) for s in shapes} == real
    assert shapes[0].size == (112, 112)
    assert cases[0].work == Work(4 * (2 * 32 * 112 * 112 + 32 * 13), 32 * 112 * 112 * 9)


def test_shapes_that_two_networks_share_are_measured_once() -> None:
    twice, once = (
        distinct(pointwise.shapes(["efficientnet_b0"] * n), HERE, LayerCase) for n in (2, 1)
    )
    assert twice == once
    assert {c.used_by for c in twice} == {("B0",)}
    shapes = [case.shape for case in twice]
    assert any(s.gated and s.residual for s in shapes)
    assert [s for s in shapes if (s.channels, s.out_channels) == (320, 1280)]


GPU = Device("cuda", "bfloat16")
DEVICES = pytest.mark.parametrize("device", [CPU, GPU], ids=lambda d: d.kind)


@DEVICES
@pytest.mark.parametrize("full", [False, True])
def test_every_row_has_its_own_key(full: bool, device: Device) -> None:
    chosen = suites(full=full, growth=True, device=device)
    keys = [(suite.name, case.key) for suite in chosen for case in suite.cases]
    assert len(set(keys)) == len(keys) > 50
    assert all(case.work.bytes > 0 < case.work.macs for s in chosen for case in s.cases)
    assert {s.name for s in chosen if any(case.device != device for case in s.cases)} == (
        {"low-precision"} if device == CPU else set()
    )


@DEVICES
def test_the_full_matrix_holds_the_default_one(device: Device) -> None:
    full = {suite.name: suite for suite in suites(full=True, device=device)}
    for suite in suites(device=device):
        assert set(suite.cases) <= set(full[suite.name].cases)
        assert set(suite.contestants) <= set(full[suite.name].contestants)
    assert network("efficientnet_b4", batch=16) in suites(full=True)[0].cases
    assert len(full["networks"].contestants) > len(suites(device=device)[0].contestants)


def test_networks_are_called_after_pauses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {suite.name: suite for suite in suites(growth=True)}
    idle, hot = named["idle"], named["networks"]
    assert idle.contestants == hot.contestants
    alone = [case.title for case in hot.cases if case.batch == 1]
    assert [case.title for case in idle.cases] == alone
    seen: list[float | str] = []
    monkeypatch.setattr(worker.time, "sleep", seen.append)
    assert len(worker.CLOCKS[idle.cases[0].clock](lambda: seen.append("run"), 2)) == 2
    assert seen == [0.2, "run", 0.2, "run"]


def test_16_bit_cases_have_half_the_bytes() -> None:
    for here, there in zip(suites()[0].cases[:2], suites(device=GPU)[0].cases[:2], strict=True):
        assert here.work.macs == there.work.macs
        assert 0.49 < there.work.bytes / here.work.bytes < 0.52


def test_resolutions_grow_from_128_to_600() -> None:
    sides = resolutions()
    assert sides == sorted(sides)
    assert (sides[0], sides[-1]) == (128, 600)
    assert {224, 380, 456} <= set(sides)


def test_the_bound_is_the_larger_of_bytes_and_arithmetic() -> None:
    limits = Limits(((1000, 4e9), (100_000, 1e9)), 2e9)
    assert limits.bound(Work(1000, 10)).kind == "memory"
    assert limits.bound(Work(1000, 10)).seconds == pytest.approx(1000 / 4e9)
    assert limits.bound(Work(1001, 10)).seconds == pytest.approx(1001 / 1e9)
    assert limits.bound(Work(10**9, 10)).seconds == pytest.approx(1.0)
    arithmetic = limits.bound(Work(1000, 10**6))
    assert (arithmetic.kind, arithmetic.seconds) == ("arithmetic", pytest.approx(1e-3))


def test_machines_have_names() -> None:
    described = {"cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "threads": 8}
    assert machine.slug(described) == "intel-xeon-platinum-8481c-8-threads"
    assert machine.slug({"gpu": {"name": "NVIDIA H200"}}, GPU) == "nvidia-h200-bf16"
    assert machine.slug({"cpu": machine.cpu_model(), "threads": 2}).endswith("-2-threads")


def test_the_repository_root_is_searched_last() -> None:
    root = str(ROOT)
    assert _root_last([root, "/a", "/b"]) == ["/a", "/b", root]
    assert _root_last(["/a"]) == ["/a", root]
