"""Runs an op with the kernels of every instruction set that there is here, and compares all with the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from effkernels import ops, use_backend
from effkernels._backends.compiled import cpu_module
from effkernels.reference import normalise
from oracle_convolutions import OracleConvolutions
from tolerance import assert_within_eager

Arguments = Mapping[str, Any]


def module() -> Any:
    """`effkernels._C`, of which these tests make no sense without."""
    found = cpu_module()
    assert found is not None
    return found


def usable_instruction_sets() -> tuple[str, ...]:
    """Slowest first; empty without `effkernels._C`."""
    found = cpu_module()
    return () if found is None else tuple(found.build_info()["instruction_sets"]["kernels"])


@contextmanager
def instruction_set(name: str) -> Iterator[None]:
    """Run these kernels inside of the block, in all threads."""
    before = module().build_info()["instruction_sets"]["in_use"]
    module().use_instruction_set(name)
    try:
        yield
    finally:
        module().use_instruction_set(before)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads inside of the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def poisoned() -> Iterator[None]:
    """New tensors hold NaN until something is written to them: results and workspace."""
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def tensors(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def run_kernels(call: Callable[..., Any], arguments: Arguments) -> tuple[Tensor, ...]:
    """The results of the cpu backend, which must not fall back and must write all of them."""
    with poisoned(), use_backend("cpu", fallback=False):
        return tensors(call(**arguments))


def run_reference(call: Callable[..., Any], arguments: Arguments) -> tuple[Tensor, ...]:
    """PyTorch's results, on one thread: its float16 convolutions wake the others for each channel."""
    with threads(1), use_backend("torch"), OracleConvolutions():
        return tensors(call(**arguments))


def in_float64(arguments: Arguments) -> Arguments:
    return tree_map_only(Tensor, lambda tensor: tensor.double(), dict(arguments))


def largest_sum(call: Callable[..., Any], arguments: Arguments) -> float:
    """The largest sum of absolute values of the terms that ``call`` adds up, but for what is not finite."""

    def absolute(value: Any) -> Any:
        if isinstance(value, ops.BatchNorm):
            weight, bias, mean, var = (None if v is None else v.double() for v in value[:4])
            positive = (None if v is None else v.abs() for v in (weight, bias))
            return ops.BatchNorm(*positive, -mean.abs(), var, value.eps)
        if isinstance(value, Tensor):
            return value.double().abs().nan_to_num(0.0, 0.0, 0.0)
        return value

    arguments = dict(arguments)
    if "mean" in arguments:  # what is normalised, not what it is made of
        mean, std = arguments.pop("mean"), arguments.pop("std")
        arguments["x"] = normalise(arguments["x"].double(), mean, std, torch.float64)
    sums = tree_map(absolute, arguments, is_leaf=lambda v: isinstance(v, ops.BatchNorm))
    first = run_reference(call, sums | {"activation": "identity"})[0]
    return first.max().item() if first.numel() else 0.0


def assert_kernels_match(
    call: Callable[..., Any],
    arguments: Arguments,
    thread_count: int,
    *,
    magnitude: float,
    depth: int,
) -> None:
    """Every instruction set, by the tolerance rule; see `tolerance.assert_within_eager`."""
    exact = run_reference(call, in_float64(arguments))
    eager = run_reference(call, arguments)
    for name in usable_instruction_sets():
        with instruction_set(name), threads(thread_count):
            actual = run_kernels(call, arguments)
        assert len(actual) == len(exact)
        for result, theirs, oracle in zip(actual, eager, exact, strict=True):
            try:
                assert_within_eager(result, theirs, oracle, magnitude=magnitude, depth=depth)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
            assert result.stride() == theirs.stride() or 1 in result.shape or not result.numel()
