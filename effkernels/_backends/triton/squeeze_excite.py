"""Squeeze-excitation: the gate from pooled values in one launch, and the whole layer."""

import functools
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from effkernels._backends.triton.elementwise import activate, load_float, mean_of_parts, sigmoid
from effkernels._backends.triton.launch import dense, divide_up, in_units, launch, nhwc, share
from effkernels._backends.triton.tuning import tuned, tuning
from effkernels.ops._define import nhwc_empty


@triton.jit
def _gate_kernel(
    pooled,  # (images, channels)
    reduce_weight,  # (hidden, channels)
    reduce_bias,
    expand_weight,  # (channels, hidden)
    expand_bias,
    gate,  # (images, channels)
    images,
    channels,
    hidden,
    shares,  # programs of the same images, which share the gates' blocks of channels
    steps,  # blocks of each
    ACTIVATION: tl.constexpr,
    IMAGES: tl.constexpr,
    HIDDEN: tl.constexpr,  # holds all hidden channels
    BLOCK_C: tl.constexpr,
):
    first = (tl.program_id(0) // shares).to(tl.int64) * IMAGES
    image = tl.arange(0, IMAGES)
    image_inside = first + image < images
    pooled += first * channels
    gate += first * channels
    h = tl.arange(0, HIDDEN)
    h_inside = h < hidden
    c = tl.arange(0, BLOCK_C)
    # Sums of every BLOCK_C-th channel, and those across threads once at the end.
    total = tl.zeros((IMAGES, HIDDEN, BLOCK_C), tl.float32)
    for first_c in range(0, channels, BLOCK_C):
        channel = first_c + c
        inside = channel < channels
        weights = load_float(
            reduce_weight + h[:, None] * channels + channel[None, :],
            h_inside[:, None] & inside[None, :],
        )
        means = load_float(
            pooled + image[:, None] * channels + channel[None, :],
            image_inside[:, None] & inside[None, :],
        )
        total += weights[None, :, :] * means[:, None, :]
    squeezed = tl.sum(total, 2)
    if reduce_bias is not None:
        squeezed += load_float(reduce_bias + h, h_inside)[None, :]
    # Of hidden channels that are not there, 0 also beside infinite means, for which it was NaN.
    squeezed = tl.where(h_inside[None, :], activate(squeezed, ACTIVATION), 0.0)
    own = tl.program_id(0) % shares * steps
    for block in range(own, own + steps):
        channel = block * BLOCK_C + c
        inside = channel < channels
        weights = load_float(
            expand_weight + channel[:, None] * hidden + h[None, :],
            inside[:, None] & h_inside[None, :],
        )
        result = tl.sum(weights[None, :, :] * squeezed[:, None, :], 2)
        if expand_bias is not None:
            result += load_float(expand_bias + channel, inside)[None, :]
        at = gate + image[:, None] * channels + channel[None, :]
        tl.store(at, sigmoid(result), mask=image_inside[:, None] & inside[None, :])


@triton.jit
def _place(bands, chunks, PIXELS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Image, band, first pixel of the band, and channels of this program."""
    program = tl.program_id(0)
    band = program // chunks % bands
    image = (program // chunks // bands).to(tl.int64)
    channel = program % chunks * BLOCK_C + tl.arange(0, BLOCK_C)
    return image, band, band.to(tl.int64) * PIXELS, channel


@triton.jit
def _squeeze_nhwc_kernel(
    x,  # (images, pixels, channels)
    sums,  # (images, bands, channels)
    pixels,
    units,  # of UNIT channels each
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
def _scale_nhwc_kernel(
    x,  # (images, pixels, channels)
    gate,  # (images, channels)
    y,  # as x
    pixels,
    units,  # of UNIT channels each
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


class GateConfig(NamedTuple):
    """A program's images, and the tile of weights that it reads at once: all hidden channels by ``block_c``."""

    images: int
    hidden: int
    block_c: int
    warps: int


# Products in flight in a program, so that a read from L2 is waited for few times: 16 a thread, for 32 spill.
_PRODUCTS = 8192
# From so many images on, which fill a GPU, two share what a program reads of the weights.
_MANY_IMAGES = 264
# The hidden channels that each program of an image computes take as long as so many blocks of gates.
_REPEATED = 8


@functools.cache
def gate_candidates(hidden: int) -> tuple[GateConfig, ...]:
    """What so many hidden channels can run with: an image a program, and where there is room two."""
    block_h = max(16, triton.next_power_of_2(hidden))
    shared = (1, 2) if block_h <= 128 else (1,)
    # The sums of more images take registers too: of two, half as many products.
    return tuple(GateConfig(n, block_h, _PRODUCTS // (block_h * n * n), 16) for n in shared)


def choose_gate(images: int, hidden: int) -> GateConfig:
    """How to cut the gates. Counted, not measured yet."""
    return gate_candidates(hidden)[-1 if images >= _MANY_IMAGES else 0]


class LayerConfig(NamedTuple):
    """A program's pixels, ``step`` at a time, and channels."""

    pixels: int
    step: int
    block_c: int
    warps: int


# 128 bytes of bfloat16 channels; the second, which tuning tries, for few images. Counted, not measured yet.
LAYER = (LayerConfig(128, 32, 64, 4), LayerConfig(32, 32, 64, 4))


def squeeze_excite_gate(*arguments: Any) -> Tensor:
    """See :func:`effkernels.ops.squeeze_excite_gate`; takes the arguments of the op's schema."""
    pooled, weight, *_, activation = arguments
    hidden = weight.shape[0]
    config, found = choose_gate(pooled.shape[0], hidden), gate_candidates(hidden)
    if tuning(pooled) and len(found) > 1:
        key = ("gate", hidden, weight.dtype, activation)
        config = tuned(pooled, key, config, found, lambda config: _start_gate(config, *arguments))
    return _start_gate(config, *arguments)


def _start_gate(
    config: GateConfig,
    pooled: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor | None,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    activation: str,
) -> Tensor:
    gate = pooled.new_empty(pooled.shape)
    images, channels = pooled.shape
    weights = dense(reduce_weight, reduce_bias, expand_weight, expand_bias)
    groups = divide_up(images, config.images)
    steps, shares = share(divide_up(channels, config.block_c), _REPEATED * groups)
    sizes = (images, channels, reduce_weight.shape[0], shares, steps)
    launch(
        _gate_kernel,
        groups * shares,
        (pooled.contiguous(), *weights, gate, *sizes),
        {
            "ACTIVATION": activation,
            "IMAGES": config.images,
            "HIDDEN": config.hidden,
            "BLOCK_C": config.block_c,
        },
        warps=config.warps,
    )
    return gate


def squeeze_excite(*arguments: Any) -> Tensor:
    """See :func:`effkernels.ops.squeeze_excite`; takes the arguments of the op's schema."""
    x, weight, *_, activation = arguments
    config = LAYER[0]
    if tuning(x):
        key = ("layer", weight.shape[0], activation)
        config = tuned(x, key, config, LAYER, lambda config: _start_layer(config, *arguments))
    return _start_layer(config, *arguments)


def _start_layer(config: LayerConfig, x: Tensor, *gate_arguments: Any) -> Tensor:
    x = nhwc(x)
    y = nhwc_empty(x, x.shape)
    images, channels, height, width = x.shape
    pixels = height * width
    bands, chunks = divide_up(pixels, config.pixels), divide_up(channels, config.block_c)
    sums = x.new_empty((images, bands, channels), dtype=torch.float32)
    units, unit = in_units(channels)
    programs, sizes = images * bands * chunks, (pixels, units, bands, chunks)
    cut = {"UNIT": unit, "PIXELS": config.pixels, "STEP": config.step, "BLOCK_C": config.block_c}
    launch(_squeeze_nhwc_kernel, programs, (x, sums, *sizes), cut, warps=config.warps)
    gate = squeeze_excite_gate(mean_of_parts(sums, pixels), *gate_arguments)
    launch(_scale_nhwc_kernel, programs, (x, gate, y, *sizes), cut, warps=config.warps)
    return y
