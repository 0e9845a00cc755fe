"""Training steps: every contestant computes the exact logits, and learns."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cases import Scope
from benchmarks.cases import training as cases
from benchmarks.cases.networks import B0
from benchmarks.contestants.training import CONTESTANTS
from benchmarks.harness.device import CPU, Device
from benchmarks.harness.problem import Problem, checked_images
from benchmarks.harness.worker import Worker


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> tuple[cases.TrainingCase, Path]:
    folder = tmp_path_factory.mktemp("problems")
    case = cases.TrainingCase(B0, 64, 8)
    inputs, answers = case.make(folder)
    Problem(folder, case).save(inputs, checked_images(case.batch), answers)
    return case, folder


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda c: c.name)
def test_logits(contestant, problem: tuple[cases.TrainingCase, Path]) -> None:  # type: ignore[no-untyped-def]
    case, folder = problem
    worker = Worker()
    prepared = worker.prepare(contestant, case, str(folder))
    if prepared.status == "missing" and not contestant.ours:
        pytest.skip(prepared.reason or "")
    assert prepared.status == "ok", prepared.reason
    assert len(worker.measure(0, 1)) == 1


def test_it_is_measured_on_request() -> None:
    (suite,) = cases.suites(Scope(full=False, device=CPU))
    assert suite.growth
    assert [c.name for c in suite.contestants if c.ours] == ["effkernels"]
    assert {c.family for c in suite.contestants} == {"effkernels", "torchvision", "timm"}
    assert cases.suites(Scope(full=True, device=Device("cuda", "bfloat16"))) == []
