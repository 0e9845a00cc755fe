"""How kernels are started, and with what."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from effkernels.ops._schema import Norm

# Whether TRITON_INTERPRET was set when the kernels were made. Then products must be of float32: the
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
    """Start ``programs`` programs on the device and the current stream of the first argument, if any."""
    if programs == 0:
        return
    with torch.cuda.device_of(arguments[0]):
        # Fused multiply-adds are asked for by name: releases of Triton differ in what they do otherwise.
        kernel[(programs,)](
            *arguments, **constants, num_warps=warps, num_stages=stages, enable_fp_fusion=True
        )


def divide_up(a: int, b: int) -> int:
    """As ``triton.cdiv``, which kernels may call too, and which takes twenty times as long."""
    return -(-a // b)


# Programs that fill a GPU of 150 multiprocessors about twice.
BUSY = 1024


def share(parts: int, others: int) -> tuple[int, int]:
    """How many of ``parts`` each program does, and how many programs that makes; of each there are ``others``.

    As many as leave enough programs: all parts of a program share what it has read and computed before.
    """
    steps = divide_up(parts, divide_up(BUSY, max(others, 1)))
    return steps, divide_up(parts, steps)


def in_units(channels: int) -> tuple[int, int]:
    """How many units of how many channels there are, for kernels to multiply.

    The compiler knows which numbers are multiples of 16, and takes others for odd: of 24, 40 or 56 channels it would
    read one at a time. Eight are 16 bytes of 16-bit elements, the most that is read at once.
    """
    unit = 8 if channels % 8 == 0 else 1
    return channels // unit, unit


def nhwc(x: Tensor) -> Tensor:
    """``x`` dense in NHWC memory, also where PyTorch leaves strides of dimensions of size 1 open."""
    return x.contiguous(memory_format=torch.channels_last)


def dense(*vectors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The vectors without gaps; a copy only of those that have some."""
    return tuple(None if v is None else v.contiguous() for v in vectors)


def vectors(norm: Norm) -> tuple[Tensor | None, ...]:
    """Those of ``norm``, in the order in which all kernels take them, before ``eps``."""
    statistics = (norm.running_mean, norm.running_var)
    return norm.bias, norm.bn_weight, norm.bn_bias, *statistics


def product_precision(dtype: torch.dtype) -> str:
    """How float32 products are computed: with TF32 where PyTorch's convolutions may.

    The question that does not raise where both of PyTorch's ways to set it were used.
    """
    if dtype != torch.float32:
        return "ieee"
    allowed: str = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    return "tf32" if allowed == "tf32" else "ieee"
