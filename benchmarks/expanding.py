"""Expand and depthwise as one kernel against two, for every block of some networks, on a GPU.

What ``effkernels._backends.cuda.MOST_EXPANDING`` is to be set by:

    python -m benchmarks.expanding [--batch N] [--dtype bfloat16]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness.replay import ROTATED_BYTES, Replay
from effkernels._backends import limits
from effkernels._backends.cuda import MOST_EXPANDING
from effkernels.analysis.cost import model_cost
from effkernels.ops._define import defined

OP = "expand_depthwise_conv_bn_act_pool"
NETWORKS = tuple(f"efficientnet_{name}" for name in ("b0", "b4", "b5", "b7"))
_MOST_CHANNELS = limits.of_module("cuda").expand_input_channels
_ROUNDS = 15
_MOST_COPIES = 64  # of inputs that are taken in turn


@dataclass(frozen=True)
class Block:
    """The first two convolutions of a block on images of ``size`` pixels."""

    channels: int
    expanded: int
    kernel: int
    stride: int
    size: tuple[int, int]

    def arguments(self, batch: int, device: str, dtype: torch.dtype) -> tuple[Any, ...]:
        """Those of the op, random; images in NHWC."""
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        x = torch.randn(batch, *self.size, self.channels, **like).permute(0, 3, 1, 2)
        first = torch.randn(self.expanded, self.channels, **like) / self.channels**0.5
        deep = torch.randn(self.expanded, 1, self.kernel, self.kernel, **like)
        norm = (*(torch.rand(self.expanded, device=device) + 0.5 for _ in range(4)), 1e-3)
        window = [self.stride] * 2, [self.kernel // 2] * 4
        return x, first, None, *norm, deep / self.kernel, None, *norm, *window, "silu"

    def __str__(self) -> str:
        size = "x".join(map(str, self.size))
        return f"{self.channels:3} > {self.expanded:4}, {self.kernel}x{self.kernel}/{self.stride}, {size}"


def blocks(models: Sequence[str]) -> list[Block]:
    """The distinct ones of these networks that there is a kernel for, in the order of the first."""
    found: dict[Block, None] = {}
    for model in models:
        for first, deep in itertools.pairwise(model_cost(model).layers):
            if first.kind == "expand" and first.in_shape[0] <= _MOST_CHANNELS:
                wide, *size = first.out_shape
                window = deep.kernel_size, deep.stride
                found[Block(first.in_shape[0], wide, *window, (size[0], size[1]))] = None
    return list(found)


def _microseconds(replay: Replay) -> float:
    """Of one of its calls."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    replay()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / len(replay.calls) * 1e3


def measure(block: Block, batch: int, dtype: torch.dtype) -> tuple[float, float]:
    """Microseconds of one kernel and of two, taking turns."""
    one = getattr(torch.ops.effkernels_cuda, OP).default
    two = defined(OP).composed
    assert two is not None
    arguments = block.arguments(batch, "cuda", dtype)
    x = arguments[0]
    count = max(2, min(_MOST_COPIES, ROTATED_BYTES // x.nbytes))
    inputs = [(x.clone(), *arguments[1:]) for _ in range(count)]
    torch.testing.assert_close(one(*arguments)[0], two(*arguments)[0], rtol=0.05, atol=0.05)
    replays = [Replay([functools.partial(run, *some) for some in inputs]) for run in (one, two)]
    rounds = [[_microseconds(replay) for replay in replays] for _ in range(_ROUNDS)]
    ours, theirs = (statistics.median(times) for times in zip(*rounds, strict=True))
    return ours, theirs


def main() -> None:
    """Print a line a block."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    options = parser.parse_args()
    print(f"batch {options.batch}, {options.dtype}, {torch.cuda.get_device_name()}")
    with torch.inference_mode():
        for block in blocks(NETWORKS):
            one, two = measure(block, options.batch, getattr(torch, options.dtype))
            window = [block.kernel] * 2, [block.stride] * 2
            why = limits.why_two_kernels(MOST_EXPANDING, block.channels, *window)
            taken = "one" if why is None else "two"
            print(f"{block!s:34} one {one:8.1f} us, two {two:8.1f}: {two / one:.2f}, takes {taken}")


if __name__ == "__main__":
    main()
