"""The cuda backend: the kernels of `effkernels._C_cuda`, registered under the contracts of `effkernels.ops`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from effkernels import dispatch
from effkernels._backends.compiled import compiled_status, cuda_module
from effkernels._backends.cpu import (
    _rejects,
    _rejects_dtype,
    _rejects_gate,
    rejects_network,
    uint8_too,
)
from effkernels.ops._define import define_private
from effkernels.ops._steps import NETWORK, run_by_steps

_CAPABILITY = (8, 0)  # the oldest that device code is built for: older ones lack bfloat16
_MOST_TERMS = 256
_MOST_HIDDEN = 12288
# Input channels, by kernel size and stride, up to which one kernel for expand and depthwise is faster than one for
# each, in the blocks of B0, B4, B5 and B7: counted (bytes, special functions, instructions on an H200; tiles as the
# kernel cuts them), not measured. What it saves is to write and to read the expanded map, most where that is several
# times the result. What it costs is to compute twice what lies under two tiles; more input channels leave room for
# smaller ones. Counted: 1.2 to 1.5 times as fast for 3x3/2, 1.1 for 3x3, 1.0 to 1.2 for 5x5/2; 0.7 to 0.97 for 5x5,
# whose own multiplications leave no time to expand in.
_MOST_EXPANDING = {(3, 1): 80, (3, 2): 112, (5, 1): 0, (5, 2): 48}


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


def why_two_kernels(c_in: int, kernel: Sequence[int], stride: Sequence[int]) -> str | None:
    """Why expand and depthwise are to be two kernels for these shapes; None where one is counted to be faster.

    Args:
        c_in: channels before they are expanded.
        kernel, stride: of the depthwise convolution, (vertical, horizontal).
    """
    most = _MOST_EXPANDING.get((kernel[0], stride[0]))
    if most is None or kernel[0] != kernel[1] or stride[0] != stride[1]:
        return f"it has no kernel for {_window(kernel, stride)}: only 3x3 and 5x5, stride 1 and 2"
    if c_in > most:
        window = _window(kernel, stride)
        return f"two kernels are counted to be faster for {c_in} channels and {window}"
    return f"it takes multiples of 8 channels, not {c_in}" if c_in % 8 else None


def _window(kernel: Sequence[int], stride: Sequence[int]) -> str:
    return f"{kernel[0]}x{kernel[1]} kernels of stride {stride[0]} by {stride[1]}"


def _rejects_expand_depthwise(*arguments: Any) -> str | None:
    x: Tensor = arguments[0]
    if x.dtype not in (torch.float16, torch.bfloat16):
        return f"it computes float16 and bfloat16, not {x.dtype}"
    reason = why_two_kernels(x.shape[1], arguments[8].shape[2:], arguments[15])
    return reason or _rejects_dtype(*arguments)


_OPS: dict[str, Callable[..., str | None]] = {
    "conv_bn_act": few_terms(uint8_too(_rejects(1))),
    "depthwise_conv_bn_act": _rejects(1),
    "depthwise_conv_bn_act_pool": _rejects(1),
    "expand_depthwise_conv_bn_act": _rejects_expand_depthwise,
    "expand_depthwise_conv_bn_act_pool": _rejects_expand_depthwise,
    "squeeze_excite_gate": few_hidden(_MOST_HIDDEN, _rejects_gate),
    "squeeze_excite": few_hidden(_MOST_HIDDEN, _rejects_dtype),
}


@functools.cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def _rejects_device(index: int) -> str | None:
    capability = _capability(index)
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
        backend, NETWORK, run_by_steps, new_enough(rejects_network), by_parts=True
    )


def register() -> None:
    """Make the backend available where `effkernels._C_cuda` is loaded and there is a GPU."""
    if cuda_module() is None:
        dispatch.mark_unavailable("cuda", compiled_status()["cuda"] or "not loaded")
        return
    for name, rejects in _OPS.items():
        dispatch.register_kernel("cuda", name, define_private(name, "cuda"), new_enough(rejects))
    register_network("cuda")
    # Asks the driver's library for management: no process that forks later is spoilt by it.
    if torch.cuda.device_count() == 0:
        dispatch.mark_unavailable("cuda", "there is no CUDA device")
    else:
        dispatch.mark_available("cuda")
