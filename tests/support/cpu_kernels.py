"""Runs an op with the CPU kernels of every available instruction set, and compares all with the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from effkernels import ops, use_backend
from effkernels._backends.compiled import compiled_status, cpu_module
from specs.case import Case, Check
from specs.oracle import Arguments, Results, in_float64, run_reference, tensors, threads
from specs.tolerance import assert_within_eager

# The backend composes it of two ops.
COMPOSED = ("pointwise_conv_bn_act_squeeze",)


def module() -> Any:
    """`effkernels._C`, without which these tests are skipped."""
    found = cpu_module()
    assert found is not None
    return found


def usable_instruction_sets() -> tuple[str, ...]:
    """The usable instruction sets, slowest first; empty without `effkernels._C`."""
    found = cpu_module()
    return () if found is None else tuple(found.build_info()["instruction_sets"]["kernels"])


@contextmanager
def instruction_set(name: str) -> Iterator[None]:
    """Use this instruction set's kernels within the block, in all threads."""
    before = module().build_info()["instruction_sets"]["in_use"]
    module().use_instruction_set(name)
    try:
        yield
    finally:
        module().use_instruction_set(before)


@contextmanager
def poisoned() -> Iterator[None]:
    """New tensors, results as well as workspace, hold NaN until they are written.

    The compiled modules allocate on CPUs without asking PyTorch's setting, and have their own.
    """
    assert torch.utils.deterministic.fill_uninitialized_memory
    fills = [
        getattr(torch.ops, f"effkernels_{backend}").fill_new_memory
        for backend, why_not in compiled_status().items()
        if why_not is None
    ]
    torch.use_deterministic_algorithms(True)
    before = [fill(True) for fill in fills]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        for fill, filled in zip(fills, before, strict=True):
            fill(filled)


def run_kernels(call: Callable[..., Any], arguments: Arguments) -> Results:
    """The results of the cpu backend, which must not fall back, and must write all of them."""
    with poisoned(), use_backend("cpu", fallback=False):
        return tensors(call(**arguments))


def assert_kernels_match(case: Case, *, but: tuple[str, ...] = ()) -> None:
    """Check the case's ops, except those in ``but``, with every instruction set, by the tolerance rule."""

    def run(check: Check, name: str) -> Results:
        with instruction_set(name), threads(case.style.threads):
            return run_kernels(getattr(ops, check.op), check.arguments)

    for check in case.checks():
        if check.op not in but:
            expected = Expected(check)
            for name in usable_instruction_sets():
                expected.assert_matched(run(check, name), name)


class Expected:
    """What an op should return: the reference's results in the dtypes of the arguments, and exact ones."""

    def __init__(self, check: Check) -> None:
        self._check = check
        call = getattr(ops, check.op)
        self._exact = run_reference(call, in_float64(check.arguments))
        self.eager = run_reference(call, check.arguments)

    def assert_matched(self, actual: Results, name: str) -> None:
        """Check the results of the kernels of this name."""
        assert len(actual) == len(self._exact)
        check = self._check
        for result, theirs, oracle in zip(actual, self.eager, self._exact, strict=True):
            try:
                assert_within_eager(
                    *(result, theirs, oracle), magnitude=check.magnitude, depth=check.depth
                )
            except AssertionError as error:
                raise AssertionError(f"{check.op}, {name}: {error}") from error
            assert result.stride() == theirs.stride() or 1 in result.shape or not result.numel()
