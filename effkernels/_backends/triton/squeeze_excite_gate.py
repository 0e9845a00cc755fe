"""The gate of squeeze-excitation, from pooled values, in one launch."""

import functools
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from effkernels._backends.triton.elementwise import activate, load_float, sigmoid
from effkernels._backends.triton.launch import dense, divide_up, launch, share
from effkernels._backends.triton.tuning import tuned, tuning
from effkernels.ops.squeeze_excite_gate import GateArguments


@triton.jit
def _gate_fwd_kernel(
    pooled,  # (images, channels)
    reduce_weight,  # (hidden, channels)
    reduce_bias,
    expand_weight,  # (channels, hidden)
    expand_bias,
    gate,  # (images, channels)
    images,
    channels,
    hidden,
    shares,  # programs per group of IMAGES images, each of which computes some of the blocks of gates
    steps,  # blocks of gates per program
    ACTIVATION: tl.constexpr,
    IMAGES: tl.constexpr,
    HIDDEN: tl.constexpr,  # at least the number of hidden channels
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
    # Each thread sums every BLOCK_C-th channel; the sums of threads are added once, at the end.
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
    # Missing hidden channels must be 0: with infinite means they would be NaN.
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


class Config(NamedTuple):
    """Images per program, and the tile of weights read at once: all hidden channels by ``block_c``."""

    images: int
    hidden: int
    block_c: int
    warps: int


# Products in flight per program, so that it rarely waits for L2: 16 per thread; 32 would spill.
_PRODUCTS = 8192
# From this number of images on, which fill a GPU, a program takes two images and reads the weights once for
# both.
_MANY_IMAGES = 264
# Every program of an image computes the hidden channels, which takes as long as this many blocks of gates.
_REPEATED = 8


@functools.cache
def candidates(hidden: int) -> tuple[Config, ...]:
    """Configurations for this many hidden channels: one image per program or, if registers allow it, two."""
    block_h = max(16, triton.next_power_of_2(hidden))
    shared = (1, 2) if block_h <= 128 else (1,)
    # The sums of a second image take registers too, so there are half as many products per image.
    return tuple(Config(n, block_h, _PRODUCTS // (block_h * n * n), 16) for n in shared)


def choose(images: int, hidden: int) -> Config:
    """The configuration to use. Counted: on an H100 B0's sixteen gates take 211 us for 128 images."""
    return candidates(hidden)[-1 if images >= _MANY_IMAGES else 0]


def squeeze_excite_gate(*arguments: Any) -> Tensor:
    """See :func:`effkernels.ops.squeeze_excite_gate`; takes the arguments of the op's schema."""
    a = GateArguments(*arguments)
    hidden = a.reduce_weight.shape[0]
    config, found = choose(a.pooled.shape[0], hidden), candidates(hidden)
    if tuning(a.pooled) and len(found) > 1:
        key = ("gate", hidden, a.reduce_weight.dtype, a.activation)
        config = tuned(a.pooled, key, config, found, lambda config: start(config, a))
    return start(config, a)


def start(config: Config, a: GateArguments) -> Tensor:
    """Run the op with ``config``."""
    gate = a.pooled.new_empty(a.pooled.shape)
    images, channels = a.pooled.shape
    weights = dense(a.reduce_weight, a.reduce_bias, a.expand_weight, a.expand_bias)
    groups = divide_up(images, config.images)
    steps, shares = share(divide_up(channels, config.block_c), _REPEATED * groups)
    sizes = (images, channels, a.reduce_weight.shape[0], shares, steps)
    launch(
        _gate_fwd_kernel,
        groups * shares,
        (a.pooled.contiguous(), *weights, gate, *sizes),
        {
            "ACTIVATION": a.activation,
            "IMAGES": config.images,
            "HIDDEN": config.hidden,
            "BLOCK_C": config.block_c,
        },
        warps=config.warps,
    )
    return gate
