"""1x1 convolution as a matrix product, (pixels, C_in) by (C_in, C_out), alone and with the mean."""

import functools
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from effkernels._backends.triton.elementwise import activate, fold, load_float, mean_of_parts
from effkernels._backends.triton.launch import (
    INTERPRETED,
    dense,
    divide_up,
    in_units,
    launch,
    nhwc,
    product_precision,
    share,
    vectors,
)
from effkernels._backends.triton.tuning import tuned, tuning
from effkernels.ops._define import nhwc_empty
from effkernels.ops.pointwise_conv_bn_act import PointwiseArguments, PointwisePoolArguments


@triton.jit
def _load_pixels(x, gate, image, row, row_inside, k, k_inside, c_in, ONE_IMAGE: tl.constexpr):
    """A tile of pixels, multiplied by the gates of their images."""
    inside = row_inside[:, None] & k_inside[None, :]
    a = tl.load(x + row[:, None] * c_in + k[None, :], mask=inside, other=0.0)
    if INTERPRETED:
        a = a.to(tl.float32)
    if gate is not None:
        if ONE_IMAGE:
            factor = tl.load(gate + k, mask=k_inside, other=0.0)[None, :]
        else:
            factor = tl.load(gate + image[:, None] * c_in + k[None, :], mask=inside, other=0.0)
        a = (a.to(tl.float32) * factor.to(tl.float32)).to(a.dtype)
    return a


@triton.jit
def _load_weights(weight, k, k_inside, column, column_inside, c_in):
    """A tile of the transposed weights."""
    inside = k_inside[:, None] & column_inside[None, :]
    b = tl.load(weight + column[None, :] * c_in + k[:, None], mask=inside, other=0.0)
    if INTERPRETED:
        b = b.to(tl.float32)
    return b


@triton.jit
def _pointwise_nhwc_fwd_kernel(
    x,  # (segments, rows, c_in)
    weight,  # (c_out, c_in)
    bias,
    bn_weight,
    bn_bias,
    mean,
    var,
    eps,
    gate,  # (images, c_in)
    residual,  # shape of y
    y,  # (segments, rows, c_out), or None
    sums,  # over a tile's pixels, float32: (segments, tiles, c_out); or None
    rows,
    pixels,  # per image
    in_units,  # of IN_UNIT input channels
    out_units,
    tiles,  # per segment
    groups,  # programs per tile of pixels: neighbours, so that the pixels stay in the caches
    steps,  # blocks of output channels per program
    IN_UNIT: tl.constexpr,
    OUT_UNIT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ONE_IMAGE: tl.constexpr,  # a segment is one image: all pixels of a tile have the same gates
    PRECISION: tl.constexpr,
    ONE_K: tl.constexpr,  # BLOCK_K holds all input channels, which are loaded once for all steps
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    c_in = in_units * IN_UNIT
    c_out = out_units * OUT_UNIT
    program = tl.program_id(0)
    group = program % groups
    tile = program // groups % tiles
    segment = (program // groups // tiles).to(tl.int64)
    first = tile.to(tl.int64) * BLOCK_M
    row = tl.arange(0, BLOCK_M)
    row_inside = first + row < rows
    # 64-bit offsets up to the tile, 32-bit offsets within it.
    x += (segment * rows + first) * c_in
    image = row
    if gate is not None:
        if ONE_IMAGE:
            gate += segment * c_in
        else:
            # For few enough pixels 32 bits suffice, and avoid the function call that a 64-bit division takes.
            first_image = tile * BLOCK_M // pixels
            image = (tile * BLOCK_M - first_image * pixels + row) // pixels
            gate += first_image.to(tl.int64) * c_in
    k = tl.arange(0, BLOCK_K)
    if ONE_K:
        k_inside = k < c_in
        a = _load_pixels(x, gate, image, row, row_inside, k, k_inside, c_in, ONE_IMAGE)
    for step in range(steps):
        column = (group * steps + step) * BLOCK_N + tl.arange(0, BLOCK_N)
        column_inside = column < c_out
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        if ONE_K:
            b = _load_weights(weight, k, k_inside, column, column_inside, c_in)
            total = tl.dot(a, b, total, input_precision=PRECISION)
        else:
            for first_k in range(0, c_in, BLOCK_K):
                at = first_k + k
                k_in = at < c_in
                a_k = _load_pixels(x, gate, image, row, row_inside, at, k_in, c_in, ONE_IMAGE)
                b_k = _load_weights(weight, at, k_in, column, column_inside, c_in)
                total = tl.dot(a_k, b_k, total, input_precision=PRECISION)
        scale, shift = fold(bias, bn_weight, bn_bias, mean, var, eps, column, column_inside)
        result = activate(total * scale[None, :] + shift[None, :], ACTIVATION)
        inside = row_inside[:, None] & column_inside[None, :]
        if y is not None:
            at_result = (segment * rows + first) * c_out + row[:, None] * c_out + column[None, :]
            if residual is not None:
                result += load_float(residual + at_result, inside)
            tl.store(y + at_result, result.to(y.dtype.element_ty), mask=inside)
        if sums is not None:
            of_tile = tl.sum(tl.where(inside, result, 0.0), 0)
            tl.store(sums + (segment * tiles + tile) * c_out + column, of_tile, mask=column_inside)


class Config(NamedTuple):
    """How a product is tiled. ``one_k``: one block holds all input channels, and serves ``steps`` output
    blocks.
    """

    block_m: int
    block_n: int
    block_k: int
    one_k: bool
    warps: int
    stages: int


# By dtype; the first row whose limits hold is used. Limits are the largest numbers of input channels, output
# channels and pixels. Counted; on an H100 B0's layers reach 38 % of their bound
# (128 images, bfloat16). Shared memory stays below 99 KB, the smallest maximum among
# GPUs of compute capability 8.0 and newer; at least two programs fit on a multiprocessor.
_ANY = 2**62


class Row(NamedTuple):
    c_in: int
    c_out: int
    rows: int
    config: Config
    why: str


_HALF = (
    Row(_ANY, _ANY, 2048, Config(32, 32, 64, False, 4, 4), "few pixels: more, smaller programs"),
    Row(16, _ANY, _ANY, Config(128, 32, 16, True, 4, 3), "expand: pixels once, output by 32"),
    Row(32, _ANY, _ANY, Config(128, 32, 32, True, 4, 3), "steps of 32: 96 and 144 waste least"),
    Row(64, _ANY, _ANY, Config(64, 64, 64, True, 4, 3), "128 pixels and their gates spill"),
    Row(_ANY, 16, _ANY, Config(64, 16, 32, False, 4, 4), "project: every output in one program"),
    Row(_ANY, 32, _ANY, Config(64, 32, 64, False, 4, 4), "the same; 128 pixels with gates spill"),
    Row(_ANY, 64, _ANY, Config(64, 64, 64, False, 4, 4), "the same"),
    Row(128, _ANY, _ANY, Config(64, 64, 128, True, 8, 3), "16 KB of pixels, 16 KB a step"),
    Row(_ANY, _ANY, _ANY, Config(64, 128, 32, False, 4, 4), "128x128 with gates spills"),
)
_FLOAT = (
    Row(_ANY, _ANY, 2048, Config(32, 32, 32, False, 4, 2), "few pixels: more, smaller programs"),
    Row(_ANY, 16, _ANY, Config(64, 16, 16, False, 4, 2), "project: every output in one program"),
    Row(_ANY, _ANY, _ANY, Config(64, 32, 32, False, 4, 2), "16 sums a thread: 32 spill"),
)


@functools.lru_cache(1024)
def choose(rows: int, c_in: int, c_out: int, dtype: torch.dtype) -> Config:
    """The configuration for a product with ``rows`` pixels of all images."""
    table = _FLOAT if dtype == torch.float32 else _HALF
    return next(
        row.config for row in table if c_in <= row.c_in and c_out <= row.c_out and rows <= row.rows
    )


def candidates(c_in: int, dtype: torch.dtype) -> list[Config]:
    """The distinct configurations that can be used with this many input channels."""
    table = _FLOAT if dtype == torch.float32 else _HALF
    fitting = [r.config for r in table if not r.config.one_k or c_in <= r.config.block_k]
    return list(dict.fromkeys(fitting))


def _run(a: PointwiseArguments, y: Tensor | None, *, pool: bool = False) -> Tensor | None:
    """Write the result into ``y``, if given; with ``pool``, return sums over tiles, (N, tiles, C_out)."""
    images, c_in, height, width = a.x.shape
    c_out = a.weight.shape[0]

    def fitting(config: Config) -> Config:
        # Sums take registers in addition to pixels that are kept or stored: with whole tiles some would spill.
        fewer = pool and (config.one_k or y is not None)
        return config._replace(block_m=max(config.block_m // 2, 32)) if fewer else config

    config = fitting(choose(images * height * width, c_in, c_out, a.x.dtype))
    if tuning(a.x):
        given = a.gate is not None, a.residual is not None, y is not None, pool
        key = ("pointwise", c_out, *given, a.activation)
        found = list(dict.fromkeys(map(fitting, candidates(c_in, a.x.dtype))))
        config = tuned(a.x, key, config, found, lambda config: start(config, a, y, pool=pool))
    return start(config, a, y, pool=pool)


def start(
    config: Config, a: PointwiseArguments, y: Tensor | None, *, pool: bool = False
) -> Tensor | None:
    """Run the op with ``config``; takes and returns what ``_run`` does."""
    images, c_in, height, width = a.x.shape
    c_out, pixels = a.weight.shape[0], height * width
    # A tile within one image reads one vector of gates. For small images such tiles would be mostly empty.
    large = pixels >= 4 * config.block_m or images * pixels >= 2**31
    apart = pool or (a.gate is not None and large)
    segments, rows = (images, pixels) if apart else (1, images * pixels)
    # Otherwise the gates of each pixel take more shared memory than the pixels, in every stage.
    stages = config.stages if apart or a.gate is None else min(config.stages, 2)
    tiles, blocks = divide_up(rows, config.block_m), divide_up(c_out, config.block_n)
    steps, groups = share(blocks, segments * tiles) if config.one_k else (1, blocks)
    sums = a.x.new_empty((images, tiles, c_out), dtype=torch.float32) if pool else None
    (in_count, in_unit), (out_count, out_unit) = in_units(c_in), in_units(c_out)
    launch(
        _pointwise_nhwc_fwd_kernel,
        segments * tiles * groups,
        (nhwc(a.x), a.weight.contiguous(), *dense(*vectors(a.norm)), a.eps, *dense(a.gate))
        + (None if a.residual is None else nhwc(a.residual), y, sums)
        + (rows, pixels, in_count, out_count, tiles, groups, steps),
        {
            "IN_UNIT": in_unit,
            "OUT_UNIT": out_unit,
            "ACTIVATION": a.activation,
            "ONE_IMAGE": apart,
            "PRECISION": product_precision(a.x.dtype),
            "ONE_K": config.one_k,
            "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n,
            "BLOCK_K": config.block_k,
        },
        warps=config.warps,
        stages=stages,
    )
    return sums


def _empty_result(a: PointwiseArguments) -> Tensor:
    return nhwc_empty(a.x, (a.x.shape[0], a.weight.shape[0], *a.x.shape[2:]))


def pointwise_conv_bn_act(*arguments: Any) -> Tensor:
    """See :func:`effkernels.ops.pointwise_conv_bn_act`; takes the arguments of the op's schema."""
    a = PointwiseArguments(*arguments)
    y = _empty_result(a)
    _run(a, y)
    return y


def _mean(a: PointwiseArguments, y: Tensor | None) -> Tensor:
    """The mean of the result; the result itself is written into ``y``, if given."""
    sums = _run(a, y, pool=True)
    assert sums is not None
    return mean_of_parts(sums, a.x.shape[2] * a.x.shape[3])


def pointwise_conv_bn_act_pool(*arguments: Any) -> Tensor:
    """See :func:`effkernels.ops.pointwise_conv_bn_act_pool`; takes the arguments of the op's schema."""
    return _mean(PointwisePoolArguments(*arguments).convolution, None)


def pointwise_conv_bn_act_squeeze(*arguments: Any) -> tuple[Tensor, Tensor]:
    """See :func:`effkernels.ops.pointwise_conv_bn_act_squeeze`; takes the arguments of the op's schema."""
    a = PointwisePoolArguments(*arguments).convolution
    y = _empty_result(a)
    return y, _mean(a, y)
