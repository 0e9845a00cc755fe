"""The specs: every op has one; it counts work as the op does, and computes the same with PyTorch
calls.
"""

from __future__ import annotations

import importlib
import pkgutil

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import specs
from effkernels import ops
from specs.case import Case
from specs.oracle import in_float64, run_reference, threads
from specs.oracle_convolutions import OracleConvolutions
from specs.samples import labels, samples

MODULES = [m.name for m in pkgutil.iter_modules(specs.__path__) if m.name in ops.__all__]
SPECS = [importlib.import_module(f"specs.{name}") for name in MODULES]
CASES = [
    pytest.param(case, id=f"{case.op}-{name}")
    for spec in SPECS
    for name, case in (spec.SAMPLES | spec.EDGES).items()
    if case.n
]


def test_every_op_has_samples_and_edges() -> None:
    functions = {name for name in ops.__all__ if name[0].islower()}
    assert {label.split("-")[0] for label in labels()} == functions
    covered = {op for spec in SPECS for case in spec.EDGES.values() for op in case.variants}
    assert covered == functions


@pytest.mark.parametrize("case", CASES)
def test_work_is_counted_as_the_op_counts_it(case: Case) -> None:
    """Without normalisation of images, which no counter counts; gates count their products."""
    arguments = case.arguments()
    flat = case.flat(case.op, arguments)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        on_meta = [a.to("meta") if isinstance(a, torch.Tensor) else a for a in flat]
        getattr(torch.ops.effkernels, case.op)(*on_meta)
    assert counter.get_total_flops() == 2 * case.work().macs
    images = arguments.get("x", arguments.get("pooled"))
    assert case.work().bytes > images.numel() * images.element_size()


@pytest.mark.parametrize("case", [param for param in CASES if "gate" not in param.id.split("-")[0]])
def test_separate_calls_compute_the_op(case: Case) -> None:
    case = case.styled(strange=0)
    arguments = in_float64(case.arguments())
    expected = run_reference(getattr(ops, case.op), arguments)[0]
    with threads(1), OracleConvolutions():
        torch.testing.assert_close(case.eager(**arguments), expected)


def test_each_call_draws_new_samples() -> None:
    first, second = samples(torch.float32)[0], samples(torch.float32)[0]
    assert not torch.equal(first.flat[0], second.flat[0])
    assert torch.equal(first.flat[0], first.flat[0])
