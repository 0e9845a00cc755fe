"""What a report says about the machine, and the limits that it measures there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from benchmarks.harness import machine
from benchmarks.harness.device import Device


@pytest.fixture
def _precision() -> Iterator[None]:
    """Restore the precision that was set before."""
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.usefixtures("_precision")
def test_limits_are_measured_in_the_precision_of_the_device(
    monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    seen = []

    def fastest(run: Callable[[], object], budget: float) -> float:
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return 1.0

    monkeypatch.setattr(machine, "_fastest", fastest)
    monkeypatch.setattr(machine, "_COPIES", [2**10])
    torch.backends.cuda.matmul.allow_tf32 = not allowed
    machine.measure_limits(Device("cpu", "tf32" if allowed else "float32"))
    assert seen
    assert set(seen) == {allowed}


def test_processors_that_compute_16_bits_slowly_may_convert_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fastest(run: Any, budget: float) -> float:
        return 50.0 if run.args[0].dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(machine, "_fastest", fastest)
    monkeypatch.setattr(machine, "_COPIES", [2**10])
    expected = machine.measure_limits().flops
    assert machine.measure_limits(Device("cpu", "bfloat16")).flops == expected


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (["model name\t: AMD EPYC"], "AMD EPYC (family 25, model 1)"),
        (["model name\t: AMD EPYC 7763 64-Core Processor"], "AMD EPYC 7763 64-Core Processor"),
        ([], None),
    ],
)
def test_processors_without_a_number_are_named_by_their_generation(
    lines: list[str], name: str | None
) -> None:
    first = ["processor\t: 0", "cpu family\t: 25", "model\t\t: 1", *lines]
    assert machine.named_processor("\n".join([*first, "", "processor\t: 1"])) == name
    assert machine.named_processor("Model\t\t: Raspberry Pi 5") == "Raspberry Pi 5"


def test_only_environment_variables_that_change_results_are_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("EFFKERNELS_STAGE_SECONDS", "EFFKERNELS_TEST_COPY", "EFFKERNELS_CACHE"):
        monkeypatch.setenv(name, "600")
    before = machine.describe()
    monkeypatch.setenv("EFFKERNELS_AUTOTUNE", "1")
    after = machine.describe()
    for described, expected in ((before, {}), (after, {"EFFKERNELS_AUTOTUNE": "1"})):
        found = described["effkernels"].pop("environment")
        found.pop("EFFKERNELS_BACKEND", None)  # it may be set for the whole test run
        found.pop("EFFKERNELS_CPU_ISA", None)
        assert found == expected
    assert json.loads(json.dumps(after)) == before
