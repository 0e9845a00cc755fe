"""Calls on inputs that are taken in turn, and a CUDA graph of them all, which runs without Python between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

ROTATED_BYTES = 400 * 2**20
"""Of inputs that are taken in turn on a GPU: three times the largest L2 cache there is and more."""

Call = Callable[[], Any]


class InTurn:
    """Makes one of ``calls`` each time it is called: of the same numbers, which lie in different places."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = tuple(calls)
        self._next = 0

    def __call__(self) -> Any:
        call = self.calls[self._next]
        self._next = (self._next + 1) % len(self.calls)
        return call()


class Replay:
    """All of ``calls`` in one CUDA graph; when called, the result of the last, in the graph's own memory.

    Attributes:
        calls: what was captured. It is kept here because the graph reads the memory of its inputs.

    Raises:
        RuntimeError: they cannot be captured. They still run, but up to version 2.11 of PyTorch its allocator
            may take the capture to go on: this process should not live much longer.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = tuple(calls)
        for call in self.calls[:2]:  # libraries choose algorithms and compile
            call()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        first: Exception | None = None
        try:
            # Only this thread's mistakes: a profiler's threads may go on with what a capture forbids.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                try:
                    for call in self.calls:
                        self._result = call()
                except Exception as error:
                    first = error
                    raise
        except Exception as error:
            # Ending a capture that went wrong raises in its turn, and leaves the capture's stream the current one.
            torch.cuda.set_stream(stream)
            why = first or error
            raise RuntimeError(f"{type(why).__name__}: {why}".splitlines()[0]) from why

    def __call__(self) -> Any:
        self._graph.replay()
        return self._result
