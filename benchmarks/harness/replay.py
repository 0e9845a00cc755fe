"""Calls on inputs that are used in turn, and a CUDA graph of all of them, which runs without Python in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

ROTATED_BYTES = 400 * 2**20
"""Bytes of inputs that are used in turn on a GPU: more than three times the largest L2 cache of any GPU."""

Call = Callable[[], Any]


class InTurn:
    """Runs the next of ``calls`` at each call: the same computation, on inputs at different addresses."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = tuple(calls)
        self._next = 0

    def __call__(self) -> Any:
        call = self.calls[self._next]
        self._next = (self._next + 1) % len(self.calls)
        return call()


class Replay:
    """All of ``calls`` in one CUDA graph; a call returns the last one's result, in the graph's own memory.

    Attributes:
        calls: what was captured. They are kept because the graph reads the memory of their inputs.

    Raises:
        RuntimeError: they cannot be captured. They still run, but up to version 2.11 of PyTorch its allocator
            may treat the capture as still active: this process should end soon.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = tuple(calls)
        for call in self.calls[:2]:  # warm-up: libraries choose algorithms and compile
            call()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        first: Exception | None = None
        try:
            # Only this thread is checked: a profiler's threads may make calls that are forbidden during a capture.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                try:
                    for call in self.calls:
                        self._result = call()
                except Exception as error:
                    first = error
                    raise
        except Exception as error:
            # Ending a failed capture raises another error, and leaves the capture's stream as the current one.
            torch.cuda.set_stream(stream)
            why = first or error
            raise RuntimeError(f"{type(why).__name__}: {why}".splitlines()[0]) from why

    def __call__(self) -> Any:
        self._graph.replay()
        return self._result
