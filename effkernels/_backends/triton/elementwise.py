"""Elementwise parts of kernels: folded BatchNorm and activations; and the means of partial sums."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from effkernels._backends.triton.launch import INTERPRETED, divide_up, launch

# The inline assembly is for NVIDIA GPUs. The interpreter and other vendors use the portable version.
_PTX = tl.constexpr(not INTERPRETED and torch.version.hip is None)


@triton.jit
def load_float(pointer, mask):
    """Load as float32, converting at once: the interpreter computes bfloat16 wrongly."""
    return tl.load(pointer, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def fold(bias, bn_weight, bn_bias, mean, var, eps, channel, mask):
    """Scale and shift of these channels: norm(convolution) = scale * convolution + shift.

    Each of the vectors may be None, and each may have its own dtype.
    """
    shift = tl.zeros(channel.shape, tl.float32)
    scale = shift + 1.0
    if bias is not None:
        shift = load_float(bias + channel, mask)
    if mean is not None:
        # Masked channels get a variance of 1, to avoid dividing by 0.
        variance = tl.load(var + channel, mask=mask, other=1.0).to(tl.float32)
        if bn_weight is not None:
            scale = load_float(bn_weight + channel, mask)
        # The approximate rsqrt, as PyTorch uses on a GPU. A correctly rounded root and quotient take forty
        # instructions,
        # and every thread folds the channels of its results: a third of all instructions of a product with few
        # terms.
        scale *= tl.rsqrt(variance + eps)
        shift = (shift - load_float(mean + channel, mask)) * scale
        if bn_bias is not None:
            shift += load_float(bn_bias + channel, mask)
    return scale, shift


# Two elements of a thread, neighbours where the layout has them, with one reciprocal for both: three special-function
# operations in place of four, which bind. The exponents end at 62, so that the product of two denominators and its
# reciprocal are normal numbers; what is taken off the sigmoids makes them exactly 0 from there on (x = -43), so that x
# times them is -0 as in PyTorch, and NaN at minus infinity. The smaller of NaN and a number is the number: NaN does not
# reach the other element. Nor does what fills up a thread's odd count of elements.
_SILU_OF_TWO = tl.constexpr(
    """
    {
    .reg .f32 power, of_x, of_y, both, sigmoid;
    mul.f32 power, $2, 0fBFB8AA3B;
    min.f32 power, power, 0f42780000;
    ex2.approx.ftz.f32 power, power;
    add.f32 of_x, power, 0f3F800000;
    mul.f32 power, $3, 0fBFB8AA3B;
    min.f32 power, power, 0f42780000;
    ex2.approx.ftz.f32 power, power;
    add.f32 of_y, power, 0f3F800000;
    mul.f32 both, of_x, of_y;
    rcp.approx.ftz.f32 both, both;
    fma.rn.sat.f32 sigmoid, of_y, both, 0fA0800800;
    mul.f32 $0, $2, sigmoid;
    fma.rn.sat.f32 sigmoid, of_x, both, 0fA0800800;
    mul.f32 $1, $3, sigmoid;
    }
    """
)


@triton.jit
def _silu(x):
    # The library's sigmoid takes ten more instructions than exponential and reciprocal.
    if _PTX:
        return tl.inline_asm_elementwise(
            _SILU_OF_TWO, "=&f,=&f,f,f", [x], dtype=tl.float32, is_pure=True, pack=2
        )
    # exp(-x) is infinite below -88, and the quotient -0; NaN at minus infinity.
    return x / (1.0 + tl.exp(-x))


@triton.jit
def _between_0_and_6(x):
    # Comparisons instead of minimum and maximum, because NaN must stay NaN.
    return tl.where(x < 0.0, 0.0, tl.where(x > 6.0, 6.0, x))


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """An activation, by name, of float32 values."""
    if ACTIVATION == "silu":
        x = _silu(x)
    elif ACTIVATION == "relu":
        x = tl.where(x < 0.0, 0.0, x)
    elif ACTIVATION == "relu6":
        x = _between_0_and_6(x)
    elif ACTIVATION == "hardswish":
        x = x * (_between_0_and_6(x + 3.0) * (1.0 / 6.0))  # x * 6 could overflow
    return x


@triton.jit
def sigmoid(x):
    """With a correctly rounded quotient: there are few gates, and each is multiplied into a whole map."""
    return tl.div_rn(1.0, 1.0 + tl.exp(-x))


@triton.jit
def _mean_of_parts_kernel(
    parts, pooled, count, channels, pixels, ROWS: tl.constexpr, BLOCK_C: tl.constexpr
):
    blocks = tl.cdiv(channels, BLOCK_C)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    channel = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    row = tl.arange(0, ROWS)
    inside = channel < channels
    total = tl.zeros((ROWS, BLOCK_C), tl.float32)
    for first in range(0, count, ROWS):
        at = parts + (image * count + first) * channels + row[:, None] * channels + channel[None, :]
        total += load_float(at, (first + row < count)[:, None] & inside[None, :])
    mean = tl.div_rn(tl.sum(total, 0), tl.zeros((BLOCK_C,), tl.float32) + pixels)
    tl.store(pooled + image * channels + channel, mean, mask=inside)


# 32 channels are a 128-byte line; 32 parts at a time, because an image of 112x112 has hundreds.
_MEAN_ROWS, _MEAN_CHANNELS = 32, 32


def mean_of_parts(parts: Tensor, pixels: int) -> Tensor:
    """(N, parts, C) sums over parts of an image to (N, C) means over its pixels, added in a fixed order."""
    images, count, channels = parts.shape
    pooled = parts.new_empty((images, channels))
    programs = images * divide_up(channels, _MEAN_CHANNELS)
    launch(
        _mean_of_parts_kernel,
        programs,
        (parts, pooled, count, channels, float(pixels)),
        {"ROWS": _MEAN_ROWS, "BLOCK_C": _MEAN_CHANNELS},
        warps=4,
    )
    return pooled
