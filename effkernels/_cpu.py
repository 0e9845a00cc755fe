"""The cpu backend: the compiled ops of `effkernels._C`, registered under the contracts of `effkernels.ops`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from effkernels import dispatch
from effkernels._compiled import cpu_module
from effkernels.ops._define import define_private

_DTYPES = frozenset((torch.float32, torch.bfloat16, torch.float16))
_MAX_KERNEL_ROWS = 64

# Where the tensors of each op's schema are, and which of them is a kernel with a height.
_OPS: dict[str, int | None] = {
    "conv_bn_act": 1,
    "depthwise_conv_bn_act": 1,
    "depthwise_conv_bn_act_pool": 1,
    "pointwise_conv_bn_act": None,
    "squeeze_excite_gate": None,
    "squeeze_excite": None,
    "mbconv": 8,
}


def _rejects(kernel: int | None) -> Callable[..., str | None]:
    def rejects(*arguments: Any) -> str | None:
        for argument in arguments:
            if isinstance(argument, Tensor) and argument.dtype not in _DTYPES:
                return f"it computes float32, bfloat16 and float16, not {argument.dtype}"
        if kernel is not None and arguments[kernel].shape[2] > _MAX_KERNEL_ROWS:
            return f"its kernels have at most {_MAX_KERNEL_ROWS} rows"
        return None

    return rejects


def _rejects_gate(*arguments: Any) -> str | None:
    pooled: Tensor = arguments[0]
    if pooled.dtype != torch.float32:
        return f"it computes gates from float32, not {pooled.dtype}"
    return _rejects(None)(*arguments)


def register() -> None:
    """Make the backend available where `effkernels._C` is loaded.

    ``EFFKERNELS_CPU_ISA`` chooses among the instruction sets that were compiled and that this processor has.
    """
    module = cpu_module()
    if module is None:
        return
    isa = os.environ.get("EFFKERNELS_CPU_ISA", "").strip().lower()
    if isa:
        try:
            module.use_instruction_set(isa)
        except ValueError as error:
            dispatch.mark_unavailable("cpu", f"EFFKERNELS_CPU_ISA: {error}")
            return
    for name, kernel in _OPS.items():
        rejects = _rejects_gate if name == "squeeze_excite_gate" else _rejects(kernel)
        dispatch.register_kernel("cpu", name, define_private(name, "cpu"), rejects)
    dispatch.mark_available("cpu")
