"""Launches kernels, and prepares their arguments."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from effkernels.ops._schema import Norm

# Whether TRITON_INTERPRET was set when the kernels were defined. If so, products must use float32: the
# interpreter multiplies bfloat16 wrongly.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


def launch(
    kernel: Any,
    programs: int,
    arguments: Sequence[Any],
    constants: Mapping[str, Any],
    *,
    warps: int,
    stages: int = 1,
) -> None:
    """Launch ``programs`` programs on the device of the first argument and its current stream; nothing if 0."""
    if programs == 0:
        return
    with torch.cuda.device_of(arguments[0]):
        # Fused multiply-adds are requested explicitly: Triton's releases differ in their default.
        kernel[(programs,)](
            *arguments, **constants, num_warps=warps, num_stages=stages, enable_fp_fusion=True
        )


def divide_up(a: int, b: int) -> int:
    """Like ``triton.cdiv``, which kernels may call too, and which takes twenty times as long."""
    return -(-a // b)


# Enough programs to fill a GPU of 150 multiprocessors about twice.
BUSY = 1024


def share(parts: int, others: int) -> tuple[int, int]:
    """(parts per program, programs) for ``parts`` that can share a program; each exists ``others`` times.

    As many parts per program as leave enough programs, because parts of a program share what it loaded and computed.
    """
    steps = divide_up(parts, divide_up(BUSY, max(others, 1)))
    return steps, divide_up(parts, steps)


def in_units(channels: int) -> tuple[int, int]:
    """(units, unit): ``channels`` as a product of two numbers, which kernels multiply.

    The compiler knows which integer arguments are multiples of 16, and assumes nothing about others: 24, 40 or 56
    channels it would read one at a time. Eight 16-bit elements are 16 bytes, the widest access.
    """
    unit = 8 if channels % 8 == 0 else 1
    return channels // unit, unit


def nhwc(x: Tensor) -> Tensor:
    """``x`` in dense NHWC memory, with the exact strides also for dimensions of size 1."""
    return x.contiguous(memory_format=torch.channels_last)


def dense(*vectors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The vectors, contiguous; only those with gaps are copied."""
    return tuple(None if v is None else v.contiguous() for v in vectors)


def vectors(norm: Norm) -> tuple[Tensor | None, ...]:
    """The vectors of ``norm``, in the order in which all kernels take them, before ``eps``."""
    statistics = (norm.running_mean, norm.running_var)
    return norm.bias, norm.bn_weight, norm.bn_bias, *statistics


def product_precision(dtype: torch.dtype) -> str:
    """The precision of float32 products: TF32 if PyTorch's convolutions may use it.

    Reads the setting that does not raise if both of PyTorch's ways to set it were used.
    """
    if dtype != torch.float32:
        return "ieee"
    allowed: str = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    return "tf32" if allowed == "tf32" else "ieee"
