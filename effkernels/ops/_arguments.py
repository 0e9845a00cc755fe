"""Checks, casts and layout conversion of the arguments of all ops, before anything is launched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from effkernels.dispatch import autocast_enabled
from effkernels.ops._schema import Norm, Pair, Sides
from effkernels.reference.convolution import output_size
from effkernels.reference.elementwise import ACTIVATIONS
from effkernels.reference.elementwise import channels_last as channels_last


class BatchNorm(NamedTuple):
    """Inference BatchNorm with the values of a module: four vectors of C elements, and eps.

    ``weight`` and ``bias`` may be None (a module without affine parameters). The kernels fold it in float32
    while they run, so changes of the vectors, also in place, take effect at the next call.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor
    eps: float = 1e-5

    @classmethod
    def of(cls, module: torch.nn.modules.batchnorm._BatchNorm) -> BatchNorm:
        """The vectors of a BatchNorm module, as references to its own.

        Raises:
            ValueError: the module keeps no running statistics.
        """
        mean, var = module.running_mean, module.running_var
        if mean is None or var is None:
            raise ValueError("the BatchNorm module has track_running_stats=False: nothing to fold")
        return cls(module.weight, module.bias, mean, var, module.eps)


class Conv(NamedTuple):
    """A convolution, with or without bias, and the BatchNorm after it, if any."""

    weight: Tensor
    bias: Tensor | None = None
    bn: BatchNorm | None = None


class Gate(NamedTuple):
    """The two products of squeeze-excitation; see :func:`effkernels.ops.squeeze_excite_gate`."""

    reduce_weight: Tensor
    reduce_bias: Tensor | None
    expand_weight: Tensor
    expand_bias: Tensor | None


def check_images(op: str, x: Tensor, name: str = "x", *, uint8: bool = False) -> None:
    """Check that ``x`` is a floating-point (N, C, H, W) tensor (or uint8, with ``uint8``).

    N may be 0, the other sizes may not.
    """
    if isinstance(x, torch.fx.Proxy):
        raise TypeError(
            f"{op}: torch.fx can trace the op only if it is called as effkernels.ops.{op}, not imported by name"
        )
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(x).__name__}")
    if x.dim() != 4:
        raise ValueError(f"{op}: {name} must be (N, C, H, W), got shape {tuple(x.shape)}")
    if not x.is_floating_point() and not (uint8 and x.dtype == torch.uint8):
        accepted = "floating point or uint8" if uint8 else "floating point"
        raise TypeError(f"{op}: {name} must be {accepted}, got {x.dtype}")
    if x.shape[1] < 1 or x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(
            f"{op}: {name} needs at least one channel, row and column, got {tuple(x.shape)}"
        )


def check_beside(
    op: str, name: str, tensor: Tensor, x: Tensor, shape: tuple[int, ...], *, dtype: bool = False
) -> None:
    """Check the shape of ``tensor``, that its device is that of ``x`` and, with ``dtype``, its dtype too."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(tensor).__name__}")
    if tensor.shape != shape:
        raise ValueError(f"{op}: {name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}")
    if tensor.device != x.device:
        raise ValueError(f"{op}: {name} is on {tensor.device}, x on {x.device}: move one of them")
    if not tensor.is_floating_point():
        raise TypeError(f"{op}: {name} must be floating point, got {tensor.dtype}")
    if dtype and tensor.dtype != x.dtype:
        raise TypeError(
            f"{op}: {name} is {tensor.dtype}, x {x.dtype}: convert one of them, or use torch.autocast"
        )


def check_activation(op: str, activation: str) -> None:
    """Check that ``activation`` is one of the five that the kernels have."""
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{op}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}"
        )


def checked_norm(
    op: str, x: Tensor, channels: int, bias: Tensor | None, bn: BatchNorm | None
) -> Norm:
    """``bias`` and ``bn``, checked, as the schemas take them: None for each vector that is missing."""
    vector = (channels,)
    if bias is not None:
        check_beside(op, "bias", bias, x, vector)
    if bn is None:
        return Norm(bias, None, None, None, None, 0.0)
    if bn.weight is not None:
        check_beside(op, "bn.weight", bn.weight, x, vector)
    if bn.bias is not None:
        check_beside(op, "bn.bias", bn.bias, x, vector)
    mean, var = bn.running_mean, bn.running_var
    if mean is None or var is None:
        name = "bn.running_mean" if mean is None else "bn.running_var"
        raise ValueError(f"{op}: {name} is None: inference needs running statistics")
    check_beside(op, "bn.running_mean", mean, x, vector)
    check_beside(op, "bn.running_var", var, x, vector)
    if not bn.eps > 0.0:
        raise ValueError(f"{op}: bn.eps must be above 0, got {bn.eps}")
    return Norm(bias, bn.weight, bn.bias, mean, var, float(bn.eps))


def matrix(op: str, name: str, weight: Tensor) -> Tensor:
    """A 1x1 kernel (C_out, C_in, 1, 1) or a matrix (C_out, C_in) as a matrix, without a copy."""
    if weight.dim() == 2:
        return weight
    if weight.dim() != 4 or weight.shape[2:] != (1, 1):
        raise ValueError(
            f"{op}: {name} must be (C_out, C_in) or (C_out, C_in, 1, 1), got {tuple(weight.shape)}"
        )
    return weight.flatten(1)


def pair(op: str, name: str, value: int | Sequence[int]) -> Pair:
    """An int or (vertical, horizontal), at least 1 each."""
    result = (value, value) if isinstance(value, int) else tuple(value)
    if len(result) != 2 or min(result) < 1:
        raise ValueError(f"{op}: {name} must be a positive int or two of them, got {value!r}")
    return result[0], result[1]


def four_sides(op: str, padding: int | Sequence[int]) -> Sides:
    """An int, (vertical, horizontal) or (top, bottom, left, right), at least 0 each."""
    sides = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
    if len(sides) == 2:
        sides = (sides[0], sides[0], sides[1], sides[1])
    # Symbols of torch.export are not compared: each comparison would become a condition of the graph.
    known = [side for side in sides if isinstance(side, int)]
    if len(sides) != 4 or min(known, default=0) < 0:
        raise ValueError(
            f"{op}: padding must be an int, (vertical, horizontal) or (top, bottom, left, right), "
            f"none negative, got {padding!r}"
        )
    return sides[0], sides[1], sides[2], sides[3]


def check_output(
    op: str,
    x: Tensor,
    kernel: Sequence[int],
    stride: Pair,
    padding: Sides,
    dilation: Pair,
) -> None:
    """Check that the kernel fits into the padded input at least once."""
    height, width = output_size(x.shape[2:], kernel, stride, padding, dilation)
    if height < 1 or width < 1:
        raise ValueError(
            f"{op}: a {kernel[0]}x{kernel[1]} kernel (dilation {dilation}) does not fit into "
            f"{x.shape[2]}x{x.shape[3]} pixels with padding {padding} (top, bottom, left, right)"
        )


def cast(tensor: Tensor) -> Tensor:
    """``tensor`` in the dtype of autocast, if that is on. Not for BN vectors, pooled values and gates."""
    device_type = tensor.device.type
    if not autocast_enabled(device_type) or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(device_type))
