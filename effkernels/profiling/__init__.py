"""Where the time of a model goes: each layer on the CPU, each kernel on a GPU, beside the least that it can take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from effkernels import dispatch
from effkernels.explaining.arguments import check_arguments, model_name
from effkernels.explaining.text import aligned, count_text, dtype_name, shape_text
from effkernels.models.scaling import check_count
from effkernels.profiling.bounds import Machine, measure
from effkernels.profiling.gpu import GpuProfile, GpuProfileRow, profile_on_gpu
from effkernels.profiling.steps import Steps, steps_of, weight_dtype

__all__ = ["GpuProfile", "GpuProfileRow", "Profile", "ProfileRow", "profile"]

_WARM_UP = 3
_WAITING = "waiting"


@dataclass(frozen=True)
class ProfileRow:
    """One step of the network on the CPU. Times are in seconds.

    Attributes:
        name: the module that owns the parameters, such as ``stages.2.1``.
        op: the effkernels op.
        in_shape, out_shape: of its input and its result.
        seconds: from its begin to its end.
        work: kind of work -> time of all threads divided by the number of threads, so that these and ``waiting`` add up
            to ``seconds``. Depthwise convolutions include their activation.
        waiting: the same of threads that had nothing to do.
        bounds: kind of work -> the least time of its arithmetic, for the kinds that have any.
        memory: the least time in which its input and its weights are read and its result is written.
        flops, bytes: as :func:`effkernels.explain` counts them.
    """

    name: str
    op: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    seconds: float
    work: Mapping[str, float]
    waiting: float
    bounds: Mapping[str, float]
    memory: float
    flops: int
    bytes: int

    @property
    def bound(self) -> float:
        """The least time of this step: that of its arithmetic or of its memory, whichever is longer."""
        return max(sum(self.bounds.values()), self.memory)


@dataclass(frozen=True)
class Profile:
    """On the CPU: each step as in the call in which it was fastest; ``print`` shows a table. See :func:`profile`.

    Attributes:
        model: the model's name, or the name of its class.
        input_shape, dtype: of the input.
        machine: what bounds were computed with, as measured here.
        rows: in the order in which they ran.
        preparation: what the C++ op spends on arguments and memory, outside of the steps.
        python: what is spent outside of the op: on Python, and operators of PyTorch's own.
        untimed: seconds of the fastest call while no step was timed.
    """

    model: str
    input_shape: tuple[int, ...]
    dtype: torch.dtype
    machine: Machine
    rows: tuple[ProfileRow, ...] = field(repr=False)
    preparation: float
    python: float
    untimed: float

    @property
    def seconds(self) -> float:
        """The sum over all rows, preparation and Python."""
        return sum(row.seconds for row in self.rows) + self.preparation + self.python

    @property
    def work(self) -> dict[str, float]:
        """The sum over all rows, by kind of work; threads that wait are one kind."""
        sums = {kind: sum(row.work[kind] for row in self.rows) for kind in self.rows[0].work}
        return {**sums, _WAITING: sum(row.waiting for row in self.rows)}

    @property
    def bounds(self) -> dict[str, float]:
        """The sum over all rows, for the kinds of work that have arithmetic."""
        return {kind: sum(r.bounds[kind] for r in self.rows) for kind in self.rows[0].bounds}

    @property
    def bound(self) -> float:
        """The sum over all rows."""
        return sum(row.bound for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """All of it, of types that JSON has."""
        return {
            "model": self.model,
            "input_shape": list(self.input_shape),
            "dtype": dtype_name(self.dtype),
            "machine": asdict(self.machine),
            "seconds": self.seconds,
            "preparation": self.preparation,
            "python": self.python,
            "untimed": self.untimed,
            "bound": self.bound,
            "work": self.work,
            "bounds": self.bounds,
            "rows": [
                {
                    **asdict(row),
                    "in_shape": list(row.in_shape),
                    "out_shape": list(row.out_shape),
                    "bound": row.bound,
                }
                for row in self.rows
            ],
        }

    def __str__(self) -> str:
        """Two tables in milliseconds: by kind of work, and by layer."""
        machine = self.machine
        images = f"{shape_text(self.input_shape)} {dtype_name(self.dtype)}"
        rates = (machine.product_rate, machine.vector_rate)
        products, vectors = (f"{2e-9 * rate:.0f}" for rate in rates)
        return "\n".join(
            (
                f"{self.model}, {images} on {count_text(machine.threads, 'thread')}: "
                f"{_ms(self.seconds)} ms ({_ms(self.untimed)} while nothing is timed), bound {_ms(self.bound)} ms",
                f"bounds from {products} GFLOP/s a thread in products, {vectors} in vectors, "
                f"{machine.bandwidth / 1e9:.0f} GB/s a thread from memory",
                "",
                *aligned(list(self._kinds()), text_columns=1),
                "",
                *aligned(list(self._layers()), text_columns=3),
            )
        )

    def _kinds(self) -> Iterator[list[str]]:
        yield ["", "ms", "share", "bound"]
        bounds = self.bounds
        around = {"preparation of the call": self.preparation, "Python around it": self.python}
        for kind, spent in (self.work | around).items():
            bound = _ms(bounds[kind]) if kind in bounds else ""
            yield [kind, _ms(spent), _percent(spent, self.seconds), bound]

    def _layers(self) -> Iterator[list[str]]:
        kinds = list(self.work)
        yield ["layer", "op", "output", "ms", "bound", "reached", *kinds]
        for row in self.rows:
            spent = [*row.work.values(), row.waiting]
            yield [
                *(row.name, row.op, shape_text(row.out_shape)),
                *(_ms(row.seconds), _ms(row.bound), _percent(row.bound, row.seconds)),
                *map(_ms, spent),
            ]
        total = sum(row.seconds for row in self.rows)
        whole = _ms(total), _ms(self.bound), _percent(self.bound, total)
        yield ["total", "", "", *whole, *map(_ms, self.work.values())]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def profile(
    model: nn.Module,
    input: Tensor,
    *,
    runs: int = 20,
    memory_rate: float | None = None,
    flop_rate: float | None = None,
) -> Profile | GpuProfile:
    """Time a model's network, on the CPU every step by kind of work and on a GPU every kernel, beside its bound.

    The model runs under ``torch.no_grad()``, with the ``use_backend`` of this thread: some times to warm up, then for
    each of ``runs`` twice on the CPU and at least four times on a GPU.

    On the CPU it has torch's number of threads. Clocks around each part of a step cost a few percent; ``untimed`` is
    the time without. The bound of a step is that of its arithmetic at the rate of multiply-adds that was measured on
    this processor, or of reading and writing its memory once, whichever is longer. SiLU counts as 16 instructions an
    element, without what a division takes longer than a multiplication.

    On a GPU the device is held up until the host has launched everything, and then runs with an event after each
    launch, on the current stream. Launches do not overlap then. What an event takes is measured and subtracted;
    :class:`GpuProfile` has the times without events, and with launches that overlap, beside their sum. The bound of a
    launch is the time of its bytes or of its FLOPs, at rates that the driver's clocks and data sheets allow.

    Args:
        model: an EfficientNet in evaluation mode, or a module that calls one network; not a compiled one.
        input: (N, C, H, W), floating point or uint8, on the CPU or a GPU, with at least one image.
        runs: calls. On the CPU each step is returned as in that in which it was fastest, since other programs disturb
            few of them; on a GPU as the mean of the middle half, which is finer than an event's clock.
        memory_rate, flop_rate: bytes a second and FLOPs a second of the GPU, in the place of the driver's.

    Returns:
        On the CPU a :class:`Profile`, on a GPU a :class:`GpuProfile`.

    Raises:
        TypeError: ``model`` is not a module, or ``input`` not a floating-point or uint8 tensor.
        ValueError: ``input`` has another shape, no image, or is elsewhere than the model; the model does not run as
            one call of the cpu or the cuda backend's network (the message says why, and what to do); ``runs`` is
            below 1; a rate is not above 0, or given for the CPU.
        Exception: whatever the model raises.
    """
    check_arguments("profile", model, input)
    check_count("profile: runs", runs)
    given = {"memory_rate": memory_rate, "flop_rate": flop_rate}
    for name, rate in given.items():
        if rate is not None and not rate > 0:
            raise ValueError(f"profile: {name} must be above 0, got {rate}")
    if input.shape[0] == 0:
        raise ValueError("profile: input has no images: there is nothing to time")
    if input.device.type == "cuda":
        with torch.inference_mode(False), torch.no_grad():
            return profile_on_gpu(model, input, runs, memory_rate, flop_rate)
    if input.device.type != "cpu":
        raise ValueError(
            f"profile: input is on {input.device}: profile measures models on the CPU and on CUDA devices"
        )
    for name, rate in given.items():
        if rate is not None:
            raise ValueError(f"profile: {name} is for a GPU: that of the CPU is measured")
    stopwatch = dispatch.stopwatch("cpu")
    if stopwatch is None:
        reason = dispatch.backends()["cpu"].reason
        raise ValueError(f"profile: the cpu backend is not available: {reason}")
    with torch.inference_mode(False), torch.no_grad():
        steps = steps_of(model, input, "cpu")
        for _ in range(_WARM_UP):
            model(input)
        machine = measure(stopwatch, weight_dtype(model), steps.weight_bytes)
        timed, untimed = [], []
        for _ in range(runs):
            untimed.append(_seconds(lambda: model(input)))
            timed.append(_timed(stopwatch, lambda: model(input)))
    networks = [network for _, network in timed]
    return Profile(
        model=model_name(model),
        input_shape=tuple(input.shape),
        dtype=input.dtype,
        machine=machine,
        rows=tuple(_rows(steps, networks, machine)),
        preparation=min(n.seconds - sum(step.seconds for step in n.steps) for n in networks),
        python=min(seconds - network.seconds for seconds, network in timed),
        untimed=min(untimed),
    )


def _seconds(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _timed(
    stopwatch: dispatch.Stopwatch, run: Callable[[], Any]
) -> tuple[float, dispatch.NetworkTime]:
    """The seconds of one call, and what its network took."""
    stopwatch.record(True)
    try:
        seconds = _seconds(run)
    finally:
        networks = stopwatch.record(False)
    return seconds, networks[0]


def _rows(
    steps: Steps, networks: Sequence[dispatch.NetworkTime], machine: Machine
) -> Iterator[ProfileRow]:
    by_step = zip(*(network.steps for network in networks), strict=True)
    # What runs after the network has rows of its own.
    for row, work, times in zip(steps.rows, steps.arithmetic, by_step, strict=False):
        took = min(times, key=lambda time: time.seconds)
        spent = {kind: seconds / machine.threads for kind, seconds in took.work.items()}
        yield ProfileRow(
            name=row.name,
            op=row.op,
            in_shape=row.in_shape,
            out_shape=row.out_shape,
            seconds=took.seconds,
            work=spent,
            waiting=took.seconds - sum(spent.values()),
            bounds=machine.seconds(work),
            memory=machine.memory(row.bytes),
            flops=row.flops,
            bytes=row.bytes,
        )
