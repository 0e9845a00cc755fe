"""How long the steps of a network take at least: their arithmetic, and the memory that they read and write."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effkernels import dispatch
from effkernels.ops._steps import LINEAR, Step

ACTIVATION_INSTRUCTIONS: Mapping[str, int] = {
    "identity": 0,
    "relu": 1,
    "relu6": 2,
    "hardswish": 5,
    "silu": 16,
}
"""Vector instructions that the CPU kernels spend on each vector of an activation, each counted as one multiply-add.

SiLU: 15 and a division, which occupies the processor for longer than the others do.
"""

_LEAST_READ = 4 << 20  # bytes; fewer would be in the cache of one core
_READS = 30


@dataclass(frozen=True)
class Arithmetic:
    """What a step computes, by kind of work, counted in multiply-adds.

    Attributes:
        product: of convolutions that are not depthwise, and of the classifier.
        depthwise: of depthwise convolutions, and of their activations.
        activation: of activations of products.
        gate: of squeeze-excitation.
        macs: multiply-adds of all convolutions and products, without activations.
    """

    product: int = 0
    depthwise: int = 0
    activation: int = 0
    gate: int = 0
    macs: int = 0


def arithmetic(
    step: Step, x: Sequence[int], y: Sequence[int], shapes: Sequence[Sequence[int]]
) -> Arithmetic:
    """Count what a step computes.

    Args:
        step: one of the network's.
        x, y: shapes of its input and its result.
        shapes: of the network's tensors, kernels of 1x1 convolutions as matrices.
    """
    own = {name: shapes[place] for name, place in step.tensors.items()}
    instructions = ACTIVATION_INSTRUCTIONS[step.options.get("activation", "identity")]
    if step.op == LINEAR:
        product = x[0] * math.prod(own["weight"])
        return Arithmetic(product=product, macs=product)
    if step.op != "mbconv":
        # A convolution; with the pool, 1x1 and of the input's size.
        channels, *window = own["weight"]
        pixels = x[0] * math.prod((y if len(y) == 4 else x)[2:])
        product = pixels * channels * math.prod(window)
        activation = pixels * channels * instructions
        return Arithmetic(product=product, activation=activation, macs=product)
    images, in_pixels, out_pixels = x[0], math.prod(x[2:]), math.prod(y[2:])
    expanded, _, *window = own["depthwise_weight"]
    expand = images * in_pixels * math.prod(own.get("expand_weight", (0,)))
    project = images * out_pixels * math.prod(own["project_weight"])
    wide = images * out_pixels * expanded
    gate = sum(
        images * math.prod(own[name])
        for name in ("se_reduce_weight", "se_expand_weight")
        if name in own
    )
    depthwise = wide * math.prod(window)
    return Arithmetic(
        product=expand + project,
        depthwise=depthwise + wide * instructions,
        activation=images * in_pixels * expanded * instructions if expand else 0,
        gate=gate,
        macs=expand + project + depthwise + gate,
    )


@dataclass(frozen=True)
class Machine:
    """What the processor can do, measured.

    Attributes:
        threads: that compute.
        product_rate: multiply-adds a second of one thread in products of the model's dtype.
        vector_rate: the same of vectors of float32, for everything else.
        bandwidth: bytes a second that one thread reads from as much memory as the model's weights take.
    """

    threads: int
    product_rate: float
    vector_rate: float
    bandwidth: float

    def seconds(self, work: Arithmetic) -> dict[str, float]:
        """The least time of each kind of work, shared evenly by all threads."""
        product, vector = self.threads * self.product_rate, self.threads * self.vector_rate
        return {
            "product": work.product / product,
            "depthwise": work.depthwise / vector,
            "activation": work.activation / vector,
            "gate": work.gate / vector,
        }

    def memory(self, size: int) -> float:
        """The least time in which all threads read that many bytes."""
        return size / (self.threads * self.bandwidth)


def measure(stopwatch: dispatch.Stopwatch, dtype: torch.dtype, weight_bytes: int) -> Machine:
    """Measure this machine, with torch's number of threads; takes some ten milliseconds."""
    return Machine(
        threads=torch.get_num_threads(),
        product_rate=stopwatch.multiply_add_rate(dtype),
        vector_rate=stopwatch.multiply_add_rate(torch.float32),
        bandwidth=_bandwidth(max(_LEAST_READ, weight_bytes)),
    )


def _bandwidth(size: int) -> float:
    memory = torch.zeros(size // 4)
    best = math.inf  # of many: other programs use memory, too
    # Of one thread: where cores are busy, several would wait for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(_READS):
            begun = time.perf_counter()
            memory.sum()
            best = min(best, time.perf_counter() - begun)
    finally:
        torch.set_num_threads(threads)
    return size / best


def weight_bytes(tensors: Sequence[Any]) -> int:
    """Bytes of those that are tensors."""
    return sum(t.nbytes for t in tensors if isinstance(t, Tensor))
