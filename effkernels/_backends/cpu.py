"""The cpu backend: the compiled ops of `effkernels._C`, registered under the contracts of `effkernels.ops`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from effkernels import dispatch
from effkernels._backends import network_layout
from effkernels._backends.compiled import compiled_status, cpu_module
from effkernels._backends.cpu_network import define_network, run_network
from effkernels.ops._define import define_private
from effkernels.ops._steps import LINEAR, NETWORK, Network

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


_CHECKS: dict[str, Callable[..., str | None]] = {
    **{name: _rejects(kernel) for name, kernel in _OPS.items()},
    "conv_bn_act": uint8_too(_rejects(_OPS["conv_bn_act"])),
    "squeeze_excite_gate": _rejects_gate,
    "mbconv": _rejects_block,
}


def rejects_network(x: Tensor, tensors: Sequence[Tensor], network: Network) -> str | None:
    """What no backend takes of networks."""
    first = network.steps[0].op == "conv_bn_act"
    return (
        _rejects_dtype(*tensors)
        if first and x.dtype == torch.uint8
        else _rejects_dtype(x, *tensors)
    )


def _rejects_whole(x: Tensor, tensors: Sequence[Tensor], network: Network) -> str | None:
    """What the one op of a network does not take: what the ops of its steps do not."""
    of_x, of_maps = x, tensors[0]
    for step in network.steps:
        if step.op != LINEAR:
            reason = _CHECKS[step.op](of_x, *step.arguments(tensors))
            if reason is not None:
                return f"{step.op}: {reason}"
        of_x = of_maps
    return rejects_network(x, tensors, network)


def register() -> None:
    """Make the backend available where `effkernels._C` is loaded.

    ``EFFKERNELS_CPU_ISA`` chooses among the instruction sets that were compiled and that this processor has.
    """
    module = cpu_module()
    if module is None:
        dispatch.mark_unavailable("cpu", compiled_status()["cpu"] or "not loaded")
        return
    if module.network_layout() != network_layout.fingerprint():
        dispatch.mark_unavailable(
            "cpu", "effkernels._C was built from other sources: build it again"
        )
        return
    isa = os.environ.get("EFFKERNELS_CPU_ISA", "").strip().lower()
    if isa:
        try:
            module.use_instruction_set(isa)
        except ValueError as error:
            dispatch.mark_unavailable("cpu", f"EFFKERNELS_CPU_ISA: {error}")
            return
    define_network()
    for name, rejects in _CHECKS.items():
        dispatch.register_kernel("cpu", name, define_private(name, "cpu"), rejects)
    dispatch.register_kernel("cpu", NETWORK, run_network, _rejects_whole)
    dispatch.mark_available("cpu")
