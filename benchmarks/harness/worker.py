"""A contestant's process: builds and runs a case on command, and otherwise waits for the next command.

Started by :mod:`benchmarks.harness.processes`, with one end of a pipe.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import logging
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import Case
from benchmarks.contestants import Built, Contestant, Missing
from benchmarks.harness import machine
from benchmarks.harness.problem import Problem, largest_error, mismatch
from benchmarks.harness.replay import InTurn, Replay

_NAP = 0.005
_LONGEST_SPIN = 0.5
_GRAPH_MODES = ("reduce-overhead", "max-autotune")  # modes of torch.compile that replay CUDA graphs
_PAUSE = 0.2
_LONE_CALLS = 50  # number of calls by which the time of one call with its launches is measured


@dataclass
class Prepared:
    """The outcome of building a contestant and comparing its result with the exact one."""

    status: str
    """"ok", "missing" (not on this machine), "mismatch" (a wrong result) or "failed"."""
    reason: str | None = None
    error: float | None = None
    allowed: float | None = None
    seconds: float = 0.0
    """Of building it and of its first run."""
    details: dict[str, Any] = field(default_factory=dict)


class _Fallbacks(logging.Handler):
    """Collects the library's messages about ops that did not run on the expected backend."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


class Worker:
    """The commands of a worker, by the names of its methods."""

    def __init__(self) -> None:
        self.spent = False
        """Whether this process should end, because a capture failed: PyTorch does not always recover from that."""
        self._run: Callable[[], Any] | None = None
        self._calls = 1  # per run
        self._clock = _each
        self._fallbacks = _Fallbacks()
        logging.getLogger("effkernels").addHandler(self._fallbacks)

    def call(self, function: str, *arguments: Any) -> Any:
        """Call ``module:function`` and return what it returns."""
        return resolve(function)(*arguments)

    def prepare(self, contestant: Contestant, case: Case, folder: str) -> Prepared:
        """Build the contestant for a case and check what it computes."""
        self.release()
        case.device.set_precision()
        start = time.perf_counter()
        try:
            built: Built = resolve(contestant.build)(case, Path(folder), **dict(contestant.options))
            with torch.inference_mode():
                output = torch.as_tensor(built.run()).cpu()
        except Missing as reason:
            return Prepared("missing", str(reason))
        except Exception as error:
            traceback.print_exc()
            return Prepared("failed", error_text(error).splitlines()[0])
        seconds = time.perf_counter() - start
        problem = Problem(Path(folder), case).load()
        exact, allowed = problem["answers"][contestant.result]

        def compared(output: torch.Tensor) -> tuple[str | None, float | None]:
            """Why it is not the exact result, and its largest error."""
            if output.shape[:1] == (case.batch,):
                output = output[problem["checked"]]
            far = None if output.shape != exact.shape else largest_error(output, exact)
            return mismatch(output, exact, allowed) if contestant.checked else None, far

        why, far = compared(output)
        details = dict(built.details)
        if contestant.ours and self._fallbacks.said:
            details["fallbacks"] = list(self._fallbacks.said)
        if why is None:
            self._run, self._clock = built.run, CLOCKS[case.clock]
            if case.device.kind == "cuda":
                details |= self._counted(contestant, built.run)
            if isinstance(built.run, InTurn):
                details |= self._capture(built.run)
                with torch.inference_mode():
                    why, far = compared(self._run().cpu())
                why = None if why is None else f"in a CUDA graph: {why}"
        status = "ok" if why is None else "mismatch"
        return Prepared(status, why, far, allowed, seconds, details)

    @staticmethod
    def _counted(contestant: Contestant, run: Callable[[], Any]) -> dict[str, Any]:
        """Launches of a run, and its memory, or why that is not known."""
        elsewhere = memory_elsewhere(contestant)
        peak = {"no peak_bytes": elsewhere} if elsewhere else {"peak_bytes": peak_bytes(run)}
        return {"launches": launches(run), **peak}

    def _capture(self, run: InTurn) -> dict[str, Any]:
        """Make a run all of the calls in one CUDA graph; returns details about it, and about a call by itself.

        A call from Python takes longer than many layers.
        """
        with torch.inference_mode():
            details: dict[str, Any] = {
                "seconds of a call": statistics.median(self._clock(run, _LONE_CALLS))
            }
            try:
                self._run, self._calls = Replay(run.calls), len(run.calls)
            except RuntimeError as error:
                self.spent = True
                details["not captured"] = str(error)
        return details

    def measure(self, warm: int, timed: int) -> list[float]:
        """Seconds of each of ``timed`` runs, after ``warm`` others; for calls in a graph, the mean over each replay."""
        run = self._run
        assert run is not None, "nothing was prepared"
        gc.disable()
        with torch.inference_mode():
            for _ in range(-(-warm // self._calls)):
                run()
            seconds = self._clock(run, -(-timed // self._calls))
        gc.enable()
        _fall_asleep()
        return [total / self._calls for total in seconds]

    def pace(self) -> float:
        """Seconds of :func:`benchmarks.harness.machine.pace`."""
        seconds = machine.pace()
        _fall_asleep()
        return seconds

    def release(self) -> None:
        """Drop what was prepared, including its threads and memory."""
        self._run, self._calls = None, 1
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def launches(run: Callable[[], Any]) -> int:
    """Kernels, copies and fills that one run starts on the GPU; those in a CUDA graph are counted one by one."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    return sum(event.device_type == DeviceType.CUDA for event in seen.events())


def memory_elsewhere(contestant: Contestant) -> str | None:
    """Why a run takes no memory from PyTorch's allocator, as when it replays a graph; None if it does."""
    options = dict(contestant.options)
    if options.get("graph") or options.get("mode") in _GRAPH_MODES:
        return "its graph keeps the memory that it was captured with"
    return "its runtime has its own memory" if contestant.family == "tensorrt" else None


def peak_bytes(run: Callable[[], Any]) -> int:
    """How much more GPU memory PyTorch hands out during one run than before it."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _each(run: Callable[[], Any], timed: int) -> list[float]:
    """Seconds of each run."""
    clock = time.perf_counter
    seconds = []
    for _ in range(timed):
        start = clock()
        run()
        seconds.append(clock() - start)
    return seconds


def _each_on_gpu(run: Callable[[], Any], timed: int) -> list[float]:
    """Seconds from the end of one run on the GPU to the end of the next, including its waits for Python."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(timed + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(marks)]


def _each_call(run: Callable[[], Any], timed: int) -> list[float]:
    """Seconds until each run has returned, whatever is still running on the GPU, which is idle before."""
    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    seconds = []
    for _ in range(timed):
        wait()
        seconds += _each(run, 1)
    return seconds


def _each_after_a_pause(run: Callable[[], Any], timed: int) -> list[float]:
    """Seconds of each run, with a pause of 200 ms before it."""
    seconds = []
    for _ in range(timed):
        time.sleep(_PAUSE)
        seconds += _each(run, 1)
    return seconds


CLOCKS = {
    "cpu": _each,
    "cuda": _each_on_gpu,
    "host": _each_call,
    "after a pause": _each_after_a_pause,
}
"""The functions that time runs, by the name of a case's clock."""


def _fall_asleep() -> None:
    """Wait until no thread of this process is computing: pools spin for a while after their work is done."""
    end = time.monotonic() + _LONGEST_SPIN
    while time.monotonic() < end:
        before = time.process_time()
        time.sleep(_NAP)
        if time.process_time() - before < _NAP / 10:
            return


def resolve(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def error_text(error: Exception) -> str:
    """The error's type and message."""
    return f"{type(error).__name__}: {error}"


def serve(pipe: Connection) -> None:
    """Run commands until the pipe is closed. Answers are ("ok", result) or ("error", message)."""
    worker = Worker()
    while True:
        try:
            command, arguments = pipe.recv()
        except EOFError:
            return
        if command == "release" and worker.spent:
            return  # the other side sees the pipe close, and starts a new process when it needs one
        try:
            answer = ("ok", getattr(worker, command)(*arguments))
        except Exception as error:
            traceback.print_exc()
            answer = ("error", error_text(error))
        pipe.send(answer)
