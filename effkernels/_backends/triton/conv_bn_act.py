"""Dense convolution with few terms per sum, such as the stem: pixels of any strides gathered for a matrix product."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from effkernels._backends.triton.elementwise import activate, fold, load_float
from effkernels._backends.triton.launch import (
    INTERPRETED,
    dense,
    divide_up,
    in_units,
    launch,
    product_precision,
    share,
    vectors,
)
from effkernels._backends.triton.tuning import tuned, tuning
from effkernels.ops._define import nhwc_empty
from effkernels.ops._window import result_size
from effkernels.ops.conv_bn_act import ConvArguments

# A row beyond any map, for positions without a pixel or a term; twice that, for those without both, is no overflow.
_NOWHERE = tl.constexpr(1 << 29)


@triton.jit
def _terms(
    first,
    c_in,
    x_channel,
    x_row,
    x_column,
    dilation_h,
    dilation_w,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """For a block of a sum's terms: which exist, their channel and tap, and their offset from the window's corner."""
    term = first + tl.arange(0, BLOCK_K)  # channels outermost, as in PyTorch's weights
    inside = term < c_in * (KERNEL_H * KERNEL_W)
    tap = term % (KERNEL_H * KERNEL_W)
    channel, i, j = term // (KERNEL_H * KERNEL_W), tap // KERNEL_W, tap % KERNEL_W
    down, across = i * dilation_h, j * dilation_w
    at = channel.to(tl.int64) * x_channel
    at += down.to(tl.int64) * x_row + across.to(tl.int64) * x_column
    return inside, channel, i, j, tl.where(inside, down, _NOWHERE), across, at


@triton.jit
def _load_weights(weight, terms, column, column_inside, w_out, w_in, w_row, w_column):
    """A tile of the transposed weights."""
    inside, channel, i, j = terms[0], terms[1], terms[2], terms[3]
    at = (channel * w_in + i * w_row + j * w_column)[:, None] + (column * w_out)[None, :]
    return tl.load(weight + at, mask=inside[:, None] & column_inside[None, :], other=0.0)


@triton.jit
def _image_norm(image_mean, image_std, terms):
    """Mean and inverse deviation for the channels of the terms."""
    inside, channel = terms[0], terms[1]
    centre = load_float(image_mean + channel, inside)
    # Terms past the last get a deviation of 1, to avoid dividing by 0.
    deviation = tl.load(image_std + channel, mask=inside, other=1.0).to(tl.float32)
    return centre, tl.div_rn(tl.full(deviation.shape, 1.0, tl.float32), deviation)


@triton.jit
def _gather(x, at, row, column, terms, norm, height, width, dtype: tl.constexpr):
    """The terms of pixels whose windows begin at ``at``, ``row`` and ``column``: (pixels, terms).

    Pixels run along the lanes of a warp, because neighbouring pixels are closer in memory than neighbouring terms.
    """
    # Negative positions become large unsigned ones, so one comparison checks both ends.
    rows = (terms[4][:, None] + row[None, :]).to(tl.uint32)
    columns = (terms[5][:, None] + column[None, :]).to(tl.uint32)
    inside = (rows < height) & (columns < width)
    a = tl.load(x + (terms[6][:, None] + at[None, :]), mask=inside, other=0)
    if norm is not None:
        # Padding must be 0 after normalisation, so it gets the mean before.
        a = tl.where(inside, a.to(tl.float32), norm[0][:, None])
        a = (a - norm[0][:, None]) * norm[1][:, None]
    return tl.trans(a.to(tl.float32 if INTERPRETED else dtype))


@triton.jit
def _conv_nhwc_fwd_kernel(
    x,  # (images, c_in, height, width), of any strides; dtype of weight, or uint8
    weight,  # (c_out, c_in, KERNEL_H, KERNEL_W), of any strides
    bias,
    bn_weight,
    bn_bias,
    mean,
    var,
    image_mean,  # (c_in,), or None
    image_std,
    eps,
    y,  # (images, out_height, out_width, c_out)
    x_image,
    x_channel,
    x_row,
    x_column,
    w_out,
    w_in,
    w_row,
    w_column,
    c_in,
    height,
    width,
    units,  # of UNIT output channels
    out_height,
    out_width,
    stride_h,
    stride_w,
    top,
    left,
    dilation_h,
    dilation_w,
    tiles,  # per image
    chunks,  # of output channels
    steps,  # parts of BLOCK_M pixels per tile
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    UNIT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    ONE_K: tl.constexpr,  # BLOCK_K holds all terms, which are computed once for all parts of a tile
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    c_out = units * UNIT
    program = tl.program_id(0)
    channel = program % chunks * BLOCK_N + tl.arange(0, BLOCK_N)
    channel_inside = channel < c_out
    tile = program // chunks % tiles
    image = (program // chunks // tiles).to(tl.int64)
    x += image * x_image
    y += image * out_height * out_width * c_out
    scale, shift = fold(bias, bn_weight, bn_bias, mean, var, eps, channel, channel_inside)
    strides = (w_out, w_in, w_row, w_column)
    where = (c_in, x_channel, x_row, x_column, dilation_h, dilation_w)
    TYPE: tl.constexpr = weight.dtype.element_ty
    norm = None
    if ONE_K:
        terms = _terms(0, *where, KERNEL_H, KERNEL_W, BLOCK_K)
        b = _load_weights(weight, terms, channel, channel_inside, *strides)
        if INTERPRETED:
            b = b.to(tl.float32)
        if image_mean is not None:
            norm = _image_norm(image_mean, image_std, terms)
    for part in range(tile * steps, tile * steps + steps):
        pixel = part * BLOCK_M + tl.arange(0, BLOCK_M)
        pixel_inside = pixel < out_height * out_width
        row = tl.where(pixel_inside, pixel // out_width * stride_h - top, _NOWHERE)
        column = pixel % out_width * stride_w - left
        at = row.to(tl.int64) * x_row + column.to(tl.int64) * x_column
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        if ONE_K:
            a = _gather(x, at, row, column, terms, norm, height, width, TYPE)
            total = tl.dot(a, b, total, input_precision=PRECISION)
        else:
            for first in range(0, c_in * KERNEL_H * KERNEL_W, BLOCK_K):
                some = _terms(first, *where, KERNEL_H, KERNEL_W, BLOCK_K)
                b_some = _load_weights(weight, some, channel, channel_inside, *strides)
                if INTERPRETED:
                    b_some = b_some.to(tl.float32)
                if image_mean is None:
                    a = _gather(x, at, row, column, some, None, height, width, TYPE)
                else:
                    some_norm = _image_norm(image_mean, image_std, some)
                    a = _gather(x, at, row, column, some, some_norm, height, width, TYPE)
                total = tl.dot(a, b_some, total, input_precision=PRECISION)
        result = activate(total * scale[None, :] + shift[None, :], ACTIVATION)
        at_result = y + pixel.to(tl.int64)[:, None] * c_out + channel[None, :]
        mask = pixel_inside[:, None] & channel_inside[None, :]
        tl.store(at_result, result.to(y.dtype.element_ty), mask=mask)


class Config(NamedTuple):
    """Pixels and output channels of a program, terms per step, and warps."""

    block_m: int
    block_n: int
    block_k: int
    warps: int


# For a stem: its 27 terms fit into 32, its 32 to 64 channels into one or two blocks. On an H100 B0's
# takes 121 us for 128 images, 40 % of the copy bandwidth; other stems were counted.
_HALF = (Config(64, 32, 32, 4), Config(64, 64, 32, 4))
# With 4 warps, normalising for 32 channels would spill registers on some architectures.
_HALF_NORMALISING = (Config(64, 32, 32, 8), Config(64, 64, 32, 4))
_FLOAT = (Config(64, 32, 16, 4),)  # both sums and factors take registers
_FLOAT_NORMALISING = (Config(32, 32, 32, 4),)
# Positions of terms that are recomputed for each block take registers.
_MORE_TERMS = (Config(32, 32, 32, 4),)


def candidates(dtype: torch.dtype, terms: int, *, normalise: bool) -> tuple[Config, ...]:
    """The possible configurations for sums of this many terms, by output channels per program."""
    if dtype == torch.float32:
        return _FLOAT_NORMALISING if normalise else _FLOAT
    if terms > _HALF[0].block_k:
        return _MORE_TERMS
    return _HALF_NORMALISING if normalise else _HALF


def choose(c_out: int, found: Sequence[Config]) -> Config:
    """The configuration for ``c_out``: few output channels go into one block."""
    return found[0 if c_out <= 32 else -1]


def conv_bn_act(*arguments: Any) -> Tensor:
    """See :func:`effkernels.ops.conv_bn_act`; takes the arguments of the op's schema."""
    a = ConvArguments(*arguments)
    found = candidates(a.weight.dtype, a.weight[0].numel(), normalise=a.mean is not None)
    config = choose(a.weight.shape[0], found)
    if tuning(a.x) and len(found) > 1:
        key = ("conv", a.weight.dtype, *a.x.stride(), *a.weight.shape, *a.stride, *a.padding)
        key += (*a.dilation, a.activation, a.mean is not None)
        config = tuned(a.x, key, config, found, lambda config: start(config, a))
    return start(config, a)


def start(config: Config, a: ConvArguments) -> Tensor:
    """Run the op with ``config``."""
    y = nhwc_empty(a.weight, result_size(a))
    images, c_out, out_height, out_width = y.shape
    block_m, block_n, block_k, warps = config
    parts, chunks = divide_up(out_height * out_width, block_m), divide_up(c_out, block_n)
    steps, tiles = share(parts, images * chunks)
    _, c_in, kernel_h, kernel_w = a.weight.shape
    top, _, left, _ = a.padding
    units, unit = in_units(c_out)
    launch(
        _conv_nhwc_fwd_kernel,
        images * tiles * chunks,
        (a.x, a.weight, *dense(*vectors(a.norm), a.mean, a.std), a.eps, y)
        + (*a.x.stride(), *a.weight.stride(), *a.x.shape[1:])
        + (units, out_height, out_width, *a.stride, top, left, *a.dilation)
        + (tiles, chunks, steps),
        {
            "KERNEL_H": kernel_h,
            "KERNEL_W": kernel_w,
            "ONE_K": c_in * kernel_h * kernel_w <= block_k,
            "UNIT": unit,
            "ACTIVATION": a.activation,
            "PRECISION": product_precision(a.weight.dtype),
            "BLOCK_M": block_m,
            "BLOCK_N": block_n,
            "BLOCK_K": block_k,
        },
        warps=warps,
    )
    return y
