"""Dense convolution of few terms a sum, such as the stem: pixels gathered as they lie, in a product."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from effkernels.ops._define import nhwc_empty
from effkernels.ops._window import result_size
from effkernels.triton.elementwise import activate, fold, load_float
from effkernels.triton.launch import INTERPRETED, dense, divide_up, launch, product_precision
from effkernels.triton.tuning import tuned, tuning


@triton.jit
def _conv_kernel(
    x,  # (images, c_in, height, width), of any strides; dtype of weight, or uint8
    weight,  # (c_out, c_in, kernel_h, kernel_w), of any strides
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
    c_out,
    out_height,
    out_width,
    kernel_h,
    kernel_w,
    stride_h,
    stride_w,
    top,
    left,
    dilation_h,
    dilation_w,
    tiles,  # of an image
    chunks,  # of output channels
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    program = tl.program_id(0)
    column = program % chunks * BLOCK_N + tl.arange(0, BLOCK_N)
    column_inside = column < c_out
    first = program // chunks % tiles * BLOCK_M
    image = (program // chunks // tiles).to(tl.int64)
    pixel = first + tl.arange(0, BLOCK_M)
    pixel_inside = pixel < out_height * out_width
    out_row, out_column = pixel // out_width, pixel % out_width
    terms = c_in * kernel_h * kernel_w
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    x += image * x_image
    for first_term in range(0, terms, BLOCK_K):
        # Channels outermost, as PyTorch's weights lie.
        term = first_term + tl.arange(0, BLOCK_K)
        term_inside = term < terms
        tap = term % (kernel_h * kernel_w)
        channel, i, j = term // (kernel_h * kernel_w), tap // kernel_w, tap % kernel_w
        row = (out_row * stride_h - top)[:, None] + (i * dilation_h)[None, :]
        across = (out_column * stride_w - left)[:, None] + (j * dilation_w)[None, :]
        inside = (row >= 0) & (row < height) & (across >= 0) & (across < width)
        inside = inside & pixel_inside[:, None] & term_inside[None, :]
        at = row.to(tl.int64) * x_row + across.to(tl.int64) * x_column
        at += (channel.to(tl.int64) * x_channel)[None, :]
        a = tl.load(x + at, mask=inside, other=0)
        if image_mean is not None:
            centre = load_float(image_mean + channel, term_inside)
            # Terms past the last have a deviation of 1, so that nothing is divided by 0.
            deviation = tl.load(image_std + channel, mask=term_inside, other=1.0).to(tl.float32)
            factor = tl.div_rn(tl.full(deviation.shape, 1.0, tl.float32), deviation)
            # Padding is 0 among what is normalised: it is taken for the mean.
            a = tl.where(inside, a.to(tl.float32), centre[None, :])
            a = (a - centre[None, :]) * factor[None, :]
        at_weight = (channel * w_in + i * w_row + j * w_column)[:, None] + (column * w_out)[None, :]
        mask = term_inside[:, None] & column_inside[None, :]
        b = tl.load(weight + at_weight, mask=mask, other=0.0)
        if INTERPRETED:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        else:
            a = a.to(b.dtype)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    scale, shift = fold(bias, bn_weight, bn_bias, mean, var, eps, column, column_inside)
    result = activate(total * scale[None, :] + shift[None, :], ACTIVATION)
    y += image * out_height * out_width * c_out
    at_result = y + pixel.to(tl.int64)[:, None] * c_out + column[None, :]
    mask = pixel_inside[:, None] & column_inside[None, :]
    tl.store(at_result, result.to(y.dtype.element_ty), mask=mask)


class Config(NamedTuple):
    """A program's pixels and output channels, and terms at a time."""

    block_m: int
    block_n: int
    block_k: int
    warps: int


# For a stem: 27 terms fit 32, and 32 to 64 channels one or two blocks. Counted, not measured yet.
_HALF = (Config(64, 32, 32, 4), Config(64, 64, 32, 4))
# With 4 warps what normalises 32 channels would spill on some architectures.
_HALF_NORMALISING = (Config(64, 32, 32, 8), Config(64, 64, 32, 4))
_FLOAT = (Config(64, 32, 16, 4),)  # sums and factors in registers


def candidates(dtype: torch.dtype, *, normalise: bool) -> tuple[Config, ...]:
    """All that can be chosen, by how many output channels they take at once."""
    if dtype == torch.float32:
        return _FLOAT
    return _HALF_NORMALISING if normalise else _HALF


def choose(c_out: int, found: Sequence[Config]) -> Config:
    """Which of them: few output channels in one block."""
    return found[0 if c_out <= 32 else -1]


def conv_bn_act(*arguments: Any) -> Tensor:
    """See :func:`effkernels.ops.conv_bn_act`; takes the arguments of the op's schema."""
    x, weight, *_, stride, padding, dilation, activation, mean, _ = arguments
    found = candidates(weight.dtype, normalise=mean is not None)
    config = choose(weight.shape[0], found)
    if tuning(x) and len(found) > 1:
        key = ("conv", weight.dtype, *x.stride(), *weight.shape, *stride, *padding, *dilation)
        key += (activation, mean is not None)
        config = tuned(x, key, config, found, lambda config: _start(config, arguments))
    return _start(config, arguments)


def _start(config: Config, arguments: Sequence[Any]) -> Tensor:
    x, weight, *vectors, eps, stride, padding, dilation, activation, mean, std = arguments
    y = nhwc_empty(weight, result_size(arguments))
    images, c_out, out_height, out_width = y.shape
    block_m, block_n, block_k, warps = config
    tiles, chunks = divide_up(out_height * out_width, block_m), divide_up(c_out, block_n)
    top, _, left, _ = padding
    launch(
        _conv_kernel,
        images * tiles * chunks,
        (
            x,
            weight,
            *dense(*vectors, mean, std),
            eps,
            y,
            *x.stride(),
            *weight.stride(),
            *x.shape[1:],
        )
        + (c_out, out_height, out_width, *weight.shape[2:], *stride, top, left, *dilation)
        + (tiles, chunks),
        {
            "ACTIVATION": activation,
            "PRECISION": product_precision(weight.dtype),
            "BLOCK_M": block_m,
            "BLOCK_N": block_n,
            "BLOCK_K": block_k,
        },
        warps=warps,
    )
    return y
