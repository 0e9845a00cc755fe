"""The cpu backend: the compiled ops of `effkernels._C`, registered under the contracts of `effkernels.ops`."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from effkernels import dispatch
from effkernels._backends.compiled import compiled_status, cpu_module
from effkernels.ops._define import define_private
from effkernels.ops.network import STEPS

_DTYPES = frozenset((torch.float32, torch.bfloat16, torch.float16))
_MAX_KERNEL_ROWS = 64

# The ops that have a kernel with a height, and which of their arguments it is.
_OPS: dict[str, int | None] = {
    "conv_bn_act": 1,
    "depthwise_conv_bn_act": 1,
    "depthwise_conv_bn_act_pool": 1,
    "pointwise_conv_bn_act": None,
    "pointwise_conv_bn_act_pool": None,
    "squeeze_excite_gate": None,
    "squeeze_excite": None,
    "mbconv": 8,
}


def _rejects_dtype(*arguments: Any) -> str | None:
    for argument in arguments:
        if isinstance(argument, Tensor) and argument.dtype not in _DTYPES:
            return f"it computes float32, bfloat16 and float16, not {argument.dtype}"
    return None


def _rejects(kernel: int | None) -> Callable[..., str | None]:
    if kernel is None:
        return _rejects_dtype

    def rejects(*arguments: Any) -> str | None:
        if arguments[kernel].shape[2] > _MAX_KERNEL_ROWS:
            return f"its kernels have at most {_MAX_KERNEL_ROWS} rows"
        return _rejects_dtype(*arguments)

    return rejects


def uint8_too(rejects: Callable[..., str | None]) -> Callable[..., str | None]:
    """Images of uint8 too, and beside them what ``rejects`` leaves."""

    def checked(x: Tensor, weight: Tensor, *others: Any) -> str | None:
        return rejects(weight if x.dtype == torch.uint8 else x, weight, *others)

    return checked


def _rejects_gate(*arguments: Any) -> str | None:
    pooled: Tensor = arguments[0]
    if pooled.dtype != torch.float32:
        return f"it computes gates from float32, not {pooled.dtype}"
    return _rejects_dtype(*arguments)


def _rejects_block(*arguments: Any) -> str | None:
    reduce_weight: Tensor | None = arguments[15]
    if reduce_weight is not None and reduce_weight.shape[0] == 0:
        return "its blocks have no gates without hidden channels"
    return _rejects(_OPS["mbconv"])(*arguments)


def rejects_network(x: Tensor, tensors: list[Tensor], numbers: list[int], *_: Any) -> str | None:
    """What no backend takes of networks."""
    # Of hundreds of tensors, at each call: no loop of Python's.
    others = set(map(operator.attrgetter("dtype"), tensors)) - _DTYPES
    if others:
        return _rejects_dtype(*tensors)
    convolution = STEPS[numbers[0]] == "conv_bn_act"
    return None if convolution and x.dtype == torch.uint8 else _rejects_dtype(x)


def register() -> None:
    """Make the backend available where `effkernels._C` is loaded.

    ``EFFKERNELS_CPU_ISA`` chooses among the instruction sets that were compiled and that this processor has; another
    name is an error when the backend is first chosen.
    """
    module = cpu_module()
    if module is None:
        dispatch.mark_unavailable("cpu", compiled_status()["cpu"] or "not loaded")
        return
    isa = os.environ.get("EFFKERNELS_CPU_ISA", "").strip().lower()
    if isa:
        try:
            module.use_instruction_set(isa)
        except ValueError as error:
            dispatch.mark_mistaken("cpu", f"EFFKERNELS_CPU_ISA: {error}")
            return
    checks = {name: _rejects(kernel) for name, kernel in _OPS.items()}
    checks["conv_bn_act"] = uint8_too(checks["conv_bn_act"])
    checks["squeeze_excite_gate"] = _rejects_gate
    checks["mbconv"] = _rejects_block
    checks["network"] = rejects_network
    for name, rejects in checks.items():
        dispatch.register_kernel("cpu", name, define_private(name, "cpu"), rejects)
    dispatch.mark_available("cpu")
