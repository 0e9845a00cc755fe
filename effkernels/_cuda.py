"""The cuda backend: the kernels of `effkernels._C_cuda`, registered under the contracts of `effkernels.ops`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from effkernels import dispatch
from effkernels._compiled import cuda_module
from effkernels._cpu import _rejects, _rejects_dtype, _rejects_gate, rejects_network, uint8_too
from effkernels.ops._define import define_private
from effkernels.ops.network import by_steps

_CAPABILITY = (8, 0)  # the oldest that device code is built for: older ones lack bfloat16
_MOST_TERMS = 256
_MOST_HIDDEN = 12288


def few_terms(rejects: Callable[..., str | None]) -> Callable[..., str | None]:
    """Only convolutions of few terms a sum, and of those what ``rejects`` leaves."""

    def checked(*arguments: Any) -> str | None:
        terms = arguments[1].shape[1:].numel()
        if terms > _MOST_TERMS:
            return f"its direct convolution sums at most {_MOST_TERMS} terms, not {terms}"
        return rejects(*arguments)

    return checked


def few_hidden(most: int, rejects: Callable[..., str | None]) -> Callable[..., str | None]:
    """Only gates of at most so many hidden channels, and of those what ``rejects`` leaves."""

    def checked(*arguments: Any) -> str | None:
        hidden = arguments[1].shape[0]
        if hidden > most:
            return f"its gates have at most {most} hidden channels, not {hidden}"
        return rejects(*arguments)

    return checked


_OPS: dict[str, Callable[..., str | None]] = {
    "conv_bn_act": few_terms(uint8_too(_rejects(1))),
    "depthwise_conv_bn_act": _rejects(1),
    "depthwise_conv_bn_act_pool": _rejects(1),
    "squeeze_excite_gate": few_hidden(_MOST_HIDDEN, _rejects_gate),
    "squeeze_excite": few_hidden(_MOST_HIDDEN, _rejects_dtype),
}


def _rejects_device(index: int) -> str | None:
    capability = torch.cuda.get_device_capability(index)
    if capability >= _CAPABILITY:
        return None
    have, want = (".".join(map(str, version)) for version in (capability, _CAPABILITY))
    return f"GPU {index} has compute capability {have}; {want} or newer is needed"


# torch.compile takes the answer as it is while tracing, as for dispatch._log_once.
_rejects_device._dynamo_marked_constant = True  # type: ignore[attr-defined]


def new_enough(rejects: Callable[..., str | None]) -> Callable[..., str | None]:
    """Only on the CPU or a GPU that device code is built for, and there what ``rejects`` leaves."""

    def checked(*arguments: Any) -> str | None:
        first: Tensor = arguments[0]
        if first.device.type == "cuda":
            reason = _rejects_device(first.device.index)
            if reason is not None:
                return reason
        return rejects(*arguments)

    return checked


def register_network(backend: str) -> None:
    """Let a GPU backend run whole networks, by the ops of their steps."""
    dispatch.register_kernel(
        backend, "network", by_steps, new_enough(rejects_network), by_parts=True
    )


def register() -> None:
    """Make the backend available where `effkernels._C_cuda` is loaded and there is a GPU."""
    if cuda_module() is None:
        return
    for name, rejects in _OPS.items():
        dispatch.register_kernel("cuda", name, define_private(name, "cuda"), new_enough(rejects))
    register_network("cuda")
    # Asks the driver's library for management: no process that forks later is spoilt by it.
    if torch.cuda.device_count() == 0:
        dispatch.mark_unavailable("cuda", "there is no CUDA device")
    else:
        dispatch.mark_available("cuda")
