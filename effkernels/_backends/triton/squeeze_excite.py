"""Squeeze-excitation as a whole layer: squeeze, gate and scale, one launch each."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from effkernels._backends.triton.elementwise import load_float, mean_of_parts
from effkernels._backends.triton.launch import divide_up, in_units, launch, nhwc
from effkernels._backends.triton.squeeze_excite_gate import squeeze_excite_gate
from effkernels._backends.triton.tuning import tuned, tuning
from effkernels.ops._define import nhwc_empty
from effkernels.ops.squeeze_excite import SqueezeExciteArguments


@triton.jit
def _place(bands, chunks, PIXELS: tl.constexpr, BLOCK_C: tl.constexpr):
    """The image, the band, the band's first pixel and the channels of this program."""
    program = tl.program_id(0)
    band = program // chunks % bands
    image = (program // chunks // bands).to(tl.int64)
    channel = program % chunks * BLOCK_C + tl.arange(0, BLOCK_C)
    return image, band, band.to(tl.int64) * PIXELS, channel


@triton.jit
def _squeeze_nhwc_fwd_kernel(
    x,  # (images, pixels, channels)
    sums,  # (images, bands, channels)
    pixels,
    units,  # of UNIT channels
    bands,
    chunks,
    UNIT: tl.constexpr,
    PIXELS: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    channels = units * UNIT
    image, band, first, channel = _place(bands, chunks, PIXELS, BLOCK_C)
    inside = channel < channels
    x += (image * pixels + first) * channels
    total = tl.zeros((STEP, BLOCK_C), tl.float32)
    for step in tl.static_range(PIXELS // STEP):
        pixel = step * STEP + tl.arange(0, STEP)
        pixel_inside = first + pixel < pixels
        at = x + pixel[:, None] * channels + channel[None, :]
        total += load_float(at, pixel_inside[:, None] & inside[None, :])
    tl.store(sums + (image * bands + band) * channels + channel, tl.sum(total, 0), mask=inside)


@triton.jit
def _scale_nhwc_fwd_kernel(
    x,  # (images, pixels, channels)
    gate,  # (images, channels)
    y,  # shape of x
    pixels,
    units,  # of UNIT channels
    bands,
    chunks,
    UNIT: tl.constexpr,
    PIXELS: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    channels = units * UNIT
    image, _, first, channel = _place(bands, chunks, PIXELS, BLOCK_C)
    inside = channel < channels
    factor = load_float(gate + image * channels + channel, inside)
    x += (image * pixels + first) * channels
    y += (image * pixels + first) * channels
    for step in tl.static_range(PIXELS // STEP):
        pixel = step * STEP + tl.arange(0, STEP)
        at = pixel[:, None] * channels + channel[None, :]
        mask = (first + pixel < pixels)[:, None] & inside[None, :]
        result = load_float(x + at, mask) * factor[None, :]
        tl.store(y + at, result.to(y.dtype.element_ty), mask=mask)


class Config(NamedTuple):
    """Pixels per program, read ``step`` at a time, channels, and warps."""

    pixels: int
    step: int
    block_c: int
    warps: int


# 128 bytes of bfloat16 channels. Tuning also tries the second, for few images. Counted.
CONFIGS = (Config(128, 32, 64, 4), Config(32, 32, 64, 4))


def squeeze_excite(*arguments: Any) -> Tensor:
    """See :func:`effkernels.ops.squeeze_excite`; takes the arguments of the op's schema."""
    a = SqueezeExciteArguments(*arguments)
    config = CONFIGS[0]
    if tuning(a.x):
        key = ("layer", a.reduce_weight.shape[0], a.activation)
        config = tuned(a.x, key, config, CONFIGS, lambda config: start(config, a))
    return start(config, a)


def start(config: Config, a: SqueezeExciteArguments) -> Tensor:
    """Run the op with ``config``."""
    x = nhwc(a.x)
    y = nhwc_empty(x, x.shape)
    images, channels, height, width = x.shape
    pixels = height * width
    bands, chunks = divide_up(pixels, config.pixels), divide_up(channels, config.block_c)
    sums = x.new_empty((images, bands, channels), dtype=torch.float32)
    units, unit = in_units(channels)
    programs, sizes = images * bands * chunks, (pixels, units, bands, chunks)
    cut = {"UNIT": unit, "PIXELS": config.pixels, "STEP": config.step, "BLOCK_C": config.block_c}
    launch(_squeeze_nhwc_fwd_kernel, programs, (x, sums, *sizes), cut, warps=config.warps)
    gate = squeeze_excite_gate(*a.gate(mean_of_parts(sums, pixels)))
    launch(_scale_nhwc_fwd_kernel, programs, (x, gate, y, *sizes), cut, warps=config.warps)
    return y
