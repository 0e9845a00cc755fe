"""The inputs of contestants: in their layout and, on a GPU, in so many copies that the L2 never holds the
next one.

In a network, a CPU's caches hold the output of the previous layer; a batch on a GPU is too large for that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from benchmarks.harness.problem import Problem
from benchmarks.harness.replay import ROTATED_BYTES, InTurn

if TYPE_CHECKING:
    from benchmarks.cases import Case

Run = Callable[..., Any]
_MOST_COPIES = 64


def copies(x: Tensor) -> list[Tensor]:
    """``x``; on a GPU also copies of it, so many that none is still in the L2 when its turn comes again.

    Of inputs so small that 64 copies fit into the L2, the reads do not matter compared with the other
    reads.
    """
    if x.device.type == "cpu":
        return [x]
    count = min(ROTATED_BYTES // max(x.nbytes, 1), _MOST_COPIES - 1)
    return [x, *(x.clone() for _ in range(count))]


def in_turn(run: Callable[[Tensor], Any], inputs: Sequence[Tensor]) -> Run:
    """Runs with one input after the other."""
    if len(inputs) == 1:
        return lambda: run(inputs[0])
    following = itertools.cycle(inputs)
    return lambda: run(next(following))


def in_layout(inputs: Any, channels_last: bool) -> Any:
    """The same structure with all 4-dimensional tensors in NHWC or in NCHW memory."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return tree_map_only(
        Tensor, lambda t: t.contiguous(memory_format=layout) if t.dim() == 4 else t, inputs
    )


def layer_in_turn(
    make: Callable[[dict[str, Any]], Run], case: Case, folder: Path, *, channels_last: bool
) -> Run:
    """What ``make`` builds from the inputs of a layer; on a GPU from copies of them, used in turn."""
    inputs = in_layout(Problem(folder, case).inputs(), channels_last)
    if case.device.kind == "cpu":
        return make(inputs)
    x = inputs["x"]
    rotated = [x, *(x.clone() for _ in range(ROTATED_BYTES // x.nbytes))]
    return InTurn([make({**inputs, "x": copy}) for copy in rotated])
