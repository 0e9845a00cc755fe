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
from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from benchmarks.harness.replay import ROTATED_BYTES, Replay
from effkernels._backends import limits
from effkernels._backends.cuda import MOST_EXPANDING
from effkernels.analysis.cost import model_cost
from effkernels.ops._define import defined
from specs.expand_depthwise_conv_bn_act import Expand

OP = "expand_depthwise_conv_bn_act_pool"
NETWORKS = tuple(f"efficientnet_{name}" for name in ("b0", "b4", "b5", "b7"))
_MOST_CHANNELS = limits.of_module("cuda").expand_input_channels
_ROUNDS = 15
_MOST_COPIES = 64  # of inputs that are taken in turn


def blocks(models: Sequence[str]) -> list[Expand]:
    """The distinct ones of these networks that there is a kernel for, in the order of the first; for one image."""
    found: dict[Expand, None] = {}
    for model in models:
        for first, depthwise in itertools.pairwise(model_cost(model).layers):
            if first.kind == "expand" and first.in_shape[0] <= _MOST_CHANNELS:
                wide, *size = first.out_shape
                kernel, stride = depthwise.kernel_size, depthwise.stride
                shape = (1, first.in_shape[0], wide, (size[0], size[1]), kernel, stride)
                found[Expand(*shape, padding=(kernel // 2,) * 4)] = None
    return list(found)


def arguments(block: Expand, batch: int, device: str, dtype: torch.dtype) -> tuple[Any, ...]:
    """Those of the op for a batch there, random; images in NHWC."""
    case = replace(block, n=batch).styled(dtype=dtype)
    return case.flat(OP, tree_map_only(torch.Tensor, lambda t: t.to(device), case.arguments()))


def _microseconds(replay: Replay) -> float:
    """Of one of its calls."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    replay()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / len(replay.calls) * 1e3


def measure(block: Expand, batch: int, dtype: torch.dtype) -> tuple[float, float]:
    """Microseconds of one kernel and of two, taking turns."""
    one = getattr(torch.ops.effkernels_cuda, OP).default
    two = defined(OP).composed
    assert two is not None
    x, *others = given = arguments(block, batch, "cuda", dtype)
    count = max(2, min(_MOST_COPIES, ROTATED_BYTES // x.nbytes))
    inputs = [(x.clone(), *others) for _ in range(count)]
    torch.testing.assert_close(one(*given)[0], two(*given)[0], rtol=0.05, atol=0.05)
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
            print(
                f"{block.title:34} one {one:8.1f} us, two {two:8.1f}: {two / one:.2f}, takes {taken}"
            )


if __name__ == "__main__":
    main()
