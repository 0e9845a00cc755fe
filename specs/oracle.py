"""The reference on one thread, in float64, and on absolute values: exact results, and the size of their sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from effkernels import ops, use_backend
from effkernels.reference import normalise
from specs.oracle_convolutions import OracleConvolutions

Arguments = Mapping[str, Any]
Results = tuple[Tensor, ...]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with this many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tensors(result: Any) -> Results:
    """What an op returns, always as a tuple."""
    return result if isinstance(result, tuple) else (result,)


def run_reference(call: Callable[..., Any], arguments: Arguments) -> Results:
    """PyTorch's results on one thread: with more, its float16 convolutions wake the others for each channel."""
    with threads(1), use_backend("torch"), OracleConvolutions():
        return tensors(call(**arguments))


def in_float64(arguments: Arguments) -> Arguments:
    """The same arguments with every tensor in float64."""
    converted: Arguments = tree_map_only(Tensor, lambda tensor: tensor.double(), dict(arguments))
    return converted


def largest_sum(call: Callable[..., Any], arguments: Arguments) -> float:
    """The largest sum of absolute values that ``call`` adds up, ignoring values that are not finite."""

    def absolute(value: Any) -> Any:
        if isinstance(value, ops.BatchNorm):
            weight, bias, mean, var = (None if v is None else v.double() for v in value[:4])
            positive = (None if v is None else v.abs() for v in (weight, bias))
            return ops.BatchNorm(*positive, -mean.abs(), var, value.eps)  # type: ignore[union-attr]
        if isinstance(value, Tensor):
            return value.double().abs().nan_to_num(0.0, 0.0, 0.0)
        return value

    arguments = dict(arguments)
    if "mean" in arguments:  # normalise first, then take absolute values
        mean, std = arguments.pop("mean"), arguments.pop("std")
        arguments["x"] = normalise(arguments["x"].double(), mean, std, torch.float64)
    sums = tree_map(absolute, arguments, is_leaf=lambda v: isinstance(v, ops.BatchNorm))
    first = run_reference(call, sums | {"activation": "identity"})[0]
    return first.max().item() if first.numel() else 0.0
