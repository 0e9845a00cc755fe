"""Activations, inference BatchNorm and accumulation dtypes, shared by all reference ops."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "identity": _identity,
}


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of pooled values and gates: float64 for float64, float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def channels_last(x: Tensor) -> Tensor:
    """``x`` in NHWC memory, copied only if necessary. Within torch.func unchanged: vmap supports no memory formats."""
    return x if _batching() else x.contiguous(memory_format=torch.channels_last)


def _batching() -> bool:
    return torch._C._are_functorch_transforms_active()


# torch.compile calls it while tracing and takes the result as a constant.
_batching._dynamo_marked_constant = True  # type: ignore[attr-defined]


def normalise(x: Tensor, mean: Tensor | None, std: Tensor | None, dtype: torch.dtype) -> Tensor:
    """``(x - mean) / std`` over dim 1, or ``x`` if both are None; uint8 images in ``dtype``, others in their own."""
    if x.is_floating_point():
        dtype = x.dtype
    if mean is None and std is None:
        return x.to(dtype)
    if mean is None or std is None:
        raise ValueError("to normalise x, pass both mean and std")
    wide = accumulate_dtype(dtype)
    means, stds = (vector.to(wide)[:, None, None] for vector in (mean, std))
    return ((x.to(wide) - means) / stds).to(dtype)


def bn_act(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    activation: str,
) -> Tensor:
    """Inference BatchNorm over dim 1 (none if ``mean`` is None), then the activation."""
    if mean is not None and var is not None:
        # batch_norm takes vectors of x's dtype, and float32 vectors with a 16-bit x.
        stats = accumulate_dtype(x.dtype)
        if mean.dtype == x.dtype and (weight is None or weight.dtype == x.dtype):
            stats = x.dtype
        x = F.batch_norm(
            x,
            mean.to(stats),
            var.to(stats),
            None if weight is None else weight.to(stats),
            None if bias is None else bias.to(stats),
            False,
            0.0,
            eps,
        )
    return ACTIVATIONS[activation](x)
