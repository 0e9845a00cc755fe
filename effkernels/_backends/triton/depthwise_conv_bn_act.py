"""Depthwise convolution by direct sums over the taps, alone and with the mean of the result."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from effkernels._backends.triton.elementwise import activate, fold, mean_of_parts
from effkernels._backends.triton.launch import (
    dense,
    divide_up,
    in_units,
    launch,
    nhwc,
    share,
    vectors,
)
from effkernels._backends.triton.tuning import tuned, tuning
from effkernels.ops._define import nhwc_empty
from effkernels.ops._window import WindowArguments, result_size


@triton.jit
def _place(tiles, chunks):
    """The image, the tile and the chunk of channels of this program.

    Chunks are innermost, because the chunks of a pixel share lines of DRAM.
    """
    program = tl.program_id(0)
    image = (program // chunks // tiles).to(tl.int64)
    return image, program // chunks % tiles, program % chunks


@triton.jit
def _finish_row(
    total,
    scale,
    shift,
    y,
    row,
    column,
    channel,
    channels_inside,
    out_height,
    out_width,
    channels,
    ACTIVATION: tl.constexpr,
):
    """Norm, activation and store of one row of a tile; returns the row, with zeros beyond the map."""
    rows = tl.zeros(column.shape, tl.int32) + row
    inside = ((column < out_width) & (rows < out_height))[:, None] & channels_inside[None, :]
    result = activate(total * scale[None, :] + shift[None, :], ACTIVATION)
    at = (
        y
        + (row.to(tl.int64) * out_width) * channels
        + column[:, None] * channels
        + channel[None, :]
    )
    tl.store(at, result.to(y.dtype.element_ty), mask=inside)
    return tl.where(inside, result, 0.0)


@triton.jit
def _add_taps(
    x,
    weights,
    in_row,  # the first input row
    in_column,  # of the first tap
    height,
    width,
    channels,
    channel,
    channels_inside,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The sums of each row of a tile. Each input row is read once, for all output rows that need it."""
    at = in_row.to(tl.int64) * width + in_column
    at = x + at[:, None] * channels + channel[None, :]
    columns_inside = ()
    totals = ()
    for j in tl.static_range(KERNEL):
        # Negative positions become large unsigned ones, so one comparison checks both ends.
        inside = (in_column + j).to(tl.uint32) < width
        columns_inside = columns_inside + (inside[:, None] & channels_inside[None, :],)
    for _ in tl.static_range(ROWS):
        totals = totals + (tl.zeros((in_column.shape[0], channel.shape[0]), tl.float32),)
    for i in tl.static_range((ROWS - 1) * STRIDE + KERNEL):
        # Compared as blocks: Triton's interpreter cannot broadcast a compared scalar.
        rows = tl.zeros(in_column.shape, tl.int32) + (in_row + i)
        row_inside = rows.to(tl.uint32) < height
        for j in tl.static_range(KERNEL):
            mask = row_inside[:, None] & columns_inside[j]
            pixels = tl.load(at + j * channels, mask=mask, other=0.0).to(tl.float32)
            added = ()
            for r in tl.static_range(ROWS):
                if i - r * STRIDE >= 0 and i - r * STRIDE < KERNEL:
                    tap_weight = weights[(i - r * STRIDE) * KERNEL + j]
                    added = added + (totals[r] + pixels * tap_weight,)
                else:
                    added = added + (totals[r],)
            totals = added
        at += width * channels
    return totals


@triton.jit
def _depthwise_nhwc_fwd_kernel(
    x,  # (images, height, width, channels)
    weight,  # (channels, KERNEL, KERNEL)
    bias,
    bn_weight,
    bn_bias,
    mean,
    var,
    eps,
    y,  # (images, out_height, out_width, channels)
    sums,  # (images, tiles, channels), or None
    height,
    width,
    units,  # of UNIT channels
    out_height,
    out_width,
    top,
    left,
    across,  # parts of ROWS x COLUMNS pixels side by side in the map
    tiles,  # per image
    chunks,
    steps,  # parts per tile
    UNIT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    image, tile, chunk = _place(tiles, chunks)
    channels = units * UNIT
    channel = chunk * BLOCK_C + tl.arange(0, BLOCK_C)
    channels_inside = channel < channels
    weights = ()
    for tap in tl.static_range(KERNEL * KERNEL):
        at = weight + channel * (KERNEL * KERNEL) + tap
        tap_weight = tl.load(at, mask=channels_inside, other=0.0).to(tl.float32)
        weights = weights + (tap_weight[None, :],)
    norm = fold(bias, bn_weight, bn_bias, mean, var, eps, channel, channels_inside)
    x += image * height * width * channels
    y += image * out_height * out_width * channels
    of_tile = tl.zeros((COLUMNS, BLOCK_C), tl.float32)
    for part in range(tile * steps, tile * steps + steps):
        first_row = part // across * ROWS
        column = part % across * COLUMNS + tl.arange(0, COLUMNS)
        totals = _add_taps(
            x,
            weights,
            first_row * STRIDE - top,
            column * STRIDE - left,
            height,
            width,
            channels,
            channel,
            channels_inside,
            KERNEL,
            STRIDE,
            ROWS,
        )
        for r in tl.static_range(ROWS):
            of_tile += _finish_row(
                totals[r],
                norm[0],
                norm[1],
                y,
                first_row + r,
                column,
                channel,
                channels_inside,
                out_height,
                out_width,
                channels,
                ACTIVATION,
            )
    if sums is not None:
        of_tile = tl.sum(of_tile, 0)
        tl.store(sums + (image * tiles + tile) * channels + channel, of_tile, mask=channels_inside)


@triton.jit
def _depthwise_nhwc_general_fwd_kernel(
    x,
    weight,  # (channels, kernel_h, kernel_w)
    bias,
    bn_weight,
    bn_bias,
    mean,
    var,
    eps,
    y,
    sums,
    height,
    width,
    units,  # of UNIT channels
    out_height,
    out_width,
    top,
    left,
    across,  # tiles side by side in a row of the map
    tiles,
    chunks,
    kernel_h,
    kernel_w,
    stride_h,
    stride_w,
    dilation_h,
    dilation_w,
    UNIT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    image, tile, chunk = _place(tiles, chunks)
    row = tile // across
    channels = units * UNIT
    channel = chunk * BLOCK_C + tl.arange(0, BLOCK_C)
    channels_inside = channel < channels
    column = tile % across * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS, BLOCK_C), tl.float32)
    for i in range(kernel_h):
        in_row = row * stride_h - top + i * dilation_h
        at_row = x + (image * height + in_row) * width * channels
        in_rows = tl.zeros((COLUMNS,), tl.int32) + in_row
        row_inside = (in_rows >= 0) & (in_rows < height)
        for j in range(kernel_w):
            in_column = column * stride_w - left + j * dilation_w
            inside = row_inside & (in_column >= 0) & (in_column < width)
            at = at_row + in_column[:, None] * channels + channel[None, :]
            mask = inside[:, None] & channels_inside[None, :]
            pixels = tl.load(at, mask=mask, other=0.0).to(tl.float32)
            at_weight = weight + (channel * kernel_h + i) * kernel_w + j
            tap_weight = tl.load(at_weight, mask=channels_inside, other=0.0).to(tl.float32)
            total += pixels * tap_weight[None, :]
    norm = fold(bias, bn_weight, bn_bias, mean, var, eps, channel, channels_inside)
    of_tile = _finish_row(
        total,
        norm[0],
        norm[1],
        y + image * out_height * out_width * channels,
        row,
        column,
        channel,
        channels_inside,
        out_height,
        out_width,
        channels,
        ACTIVATION,
    )
    if sums is not None:
        of_tile = tl.sum(of_tile, 0)
        tl.store(sums + (image * tiles + tile) * channels + channel, of_tile, mask=channels_inside)


class Config(NamedTuple):
    """The tile of a program, in pixels and channels, and its warps."""

    rows: int
    columns: int
    block_c: int
    warps: int


# For square kernels without dilation and with equal strides of 1 or 2: the configurations, and the number of
# instructions per output, counted in the code that Triton 3.9 generates for an H100. There B0's ten
# depthwise layers reach 28 % of the copy bandwidth with what is chosen (Triton 3.6, 128 images, bfloat16). A thread
# keeps in registers the weights of its channels and the sums of `rows` by several columns.
_WIDE, _LOW, _NARROW = Config(4, 8, 64, 4), Config(2, 8, 64, 4), Config(2, 8, 32, 4)
# For 224-pixel images maps are 7 * 2^n wide; each thread has eight channels.
_TALL, _BROAD = Config(7, 8, 64, 4), Config(4, 16, 64, 4)
_FEW = Config(4, 16, 32, 4)  # for the first blocks, which have few channels
_SINGLE = Config(4, 4, 32, 4)
UNROLLED: dict[tuple[int, int], dict[Config, float]] = {
    (3, 1): {_WIDE: 36.2, _TALL: 34.1, _BROAD: 30.8, _FEW: 36.2, _LOW: 42.8, _NARROW: 58.8},
    (3, 2): {_WIDE: 42.7, _TALL: 41.1, _BROAD: 36.6, _LOW: 47.4, _NARROW: 65.8},
    (5, 1): {_WIDE: 69.0, _LOW: 84.6, _NARROW: 113.5},
    (5, 2): {_LOW: 91.4, _NARROW: 119.8},  # 11 rows of input would unroll into too much code
    (7, 1): {_SINGLE: 195.2},  # one channel per thread: the 49 weights of more do not fit
    (7, 2): {_SINGLE: 229.5},
}
# For all other windows: reads the input once per tap.
GENERAL = Config(1, 16, 64, 4)


def _unrolled(
    kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> dict[Config, float]:
    if kernel[0] != kernel[1] or stride[0] != stride[1] or dilation[0] != 1 or dilation[1] != 1:
        return {}
    return UNROLLED.get((kernel[0], stride[0]), {})


def candidates(
    kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[Config, ...]:
    """The configurations that can run a window."""
    return *_unrolled(kernel, stride, dilation), GENERAL


# Programs that a GPU of 132 multiprocessors runs at once: fewer take just as long.
_AT_ONCE = 4 * 132


@functools.lru_cache(1024)
def choose(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    size: tuple[int, int, int, int],
) -> Config:
    """The configuration expected to be fastest for a result of this ``size``, (N, C, H, W).

    The estimate is the instructions per thread times the number of tiles, including what tiles overhang the map.
    """
    images, channels, height, width = size

    def time(config: Config, instructions: float) -> float:
        rows, columns, block_c, warps = config
        parts = images * divide_up(channels, block_c) * divide_up(height, rows)
        parts *= divide_up(width, columns)
        return max(parts, _AT_ONCE) * instructions * rows * columns * block_c / warps

    found = _unrolled(kernel, stride, dilation)
    return min(found, key=lambda config: time(config, found[config]), default=GENERAL)


def _run(a: WindowArguments, *, pool: bool) -> tuple[Tensor, Tensor | None]:
    """The result and, with ``pool``, the sums of its tiles, (N, tiles, C)."""
    window = (tuple(a.weight.shape[2:]), tuple(a.stride), tuple(a.dilation))
    config = choose(*window, tuple(result_size(a)))
    found = candidates(*window)
    if tuning(a.x) and len(found) > 1:
        key = ("depthwise", *a.weight.shape[2:], *a.stride, *a.padding, a.activation, pool)
        config = tuned(a.x, key, config, found, lambda config: start(config, a, pool=pool))
    return start(config, a, pool=pool)


def start(config: Config, a: WindowArguments, *, pool: bool) -> tuple[Tensor, Tensor | None]:
    """Run the op with ``config``; returns what ``_run`` returns."""
    images, channels, height, width = a.x.shape
    y = nhwc_empty(a.x, result_size(a))
    out_height, out_width = y.shape[2:]
    kernel_h, kernel_w = a.weight.shape[2:]
    rows, columns, block_c, warps = config
    across, chunks = divide_up(out_width, columns), divide_up(channels, block_c)
    parts = divide_up(out_height, rows) * across
    steps, tiles = (1, parts) if config == GENERAL else share(parts, images * chunks)
    sums = a.x.new_empty((images, tiles, channels), dtype=torch.float32) if pool else None
    top, _, left, _ = a.padding
    units, unit = in_units(channels)
    common = (nhwc(a.x), a.weight.contiguous(), *dense(*vectors(a.norm)), a.eps, y, sums)
    common += (height, width, units, out_height, out_width, top, left, across, tiles, chunks)
    cut = {"UNIT": unit, "ACTIVATION": a.activation, "COLUMNS": columns, "BLOCK_C": block_c}
    programs = images * tiles * chunks
    if config == GENERAL:
        window = (kernel_h, kernel_w, *a.stride, *a.dilation)
        launch(_depthwise_nhwc_general_fwd_kernel, programs, common + window, cut, warps=warps)
    else:
        stride, _ = a.stride
        cut |= {"KERNEL": kernel_h, "STRIDE": stride, "ROWS": rows}
        launch(_depthwise_nhwc_fwd_kernel, programs, (*common, steps), cut, warps=warps)
    return y, sums


def depthwise_conv_bn_act(*arguments: Any) -> Tensor:
    """See :func:`effkernels.ops.depthwise_conv_bn_act`; takes the arguments of the op's schema."""
    return _run(WindowArguments(*arguments), pool=False)[0]


def depthwise_conv_bn_act_pool(*arguments: Any) -> tuple[Tensor, Tensor]:
    """See :func:`effkernels.ops.depthwise_conv_bn_act_pool`; takes the arguments of the op's schema."""
    y, sums = _run(WindowArguments(*arguments), pool=True)
    assert sums is not None
    return y, mean_of_parts(sums, y.shape[2] * y.shape[3])
