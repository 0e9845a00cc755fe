"""Where the time of a model goes on a GPU: each kernel as it is launched, beside the least that it can take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from effkernels import dispatch, launch_timing
from effkernels.explaining.arguments import model_name
from effkernels.explaining.text import aligned, count_text, dtype_name, shape_text
from effkernels.launch_timing import LaunchTimer, Timed, TimedRun
from effkernels.profiling.steps import Steps, rows_text, steps_of, weight_dtype
from effkernels.timing import quartiles

_BACKEND = "cuda"
# Passes before the first that counts, and seconds: an idle device raises its clock only while it computes.
_WARM_UP, _WARM_UP_SECONDS = 3, 0.2
# Seconds by which a run begins later, so that the host can launch everything before: at first, for each launch (the
# host of an H100 took 3 microseconds, and one for an event), and where the host takes longer.
_HOLD_UP, _HOLD_UP_OF_A_LAUNCH, _MOST_HOLD_UP = 100e-6, 15e-6, 50e-3


@dataclass(frozen=True)
class GpuProfileRow:
    """A kernel of a layer: one launch, or one for each part of the images. Times are in seconds.

    Attributes:
        name: the layer, such as ``stages.2.1.depthwise``.
        op: the effkernels op that it belongs to.
        layer: of a block: ``expand``, ``depthwise``, both as ``expand+depthwise``, ``squeeze_excite`` or ``project``;
            else empty.
        kernel: its name.
        launches: how many there are: more than one where the block runs in parts of its images.
        seconds: of all of them, without what events take: the mean of the middle half of the runs.
        low, high: lower and upper quartile of the runs.
        bytes: that the launches read once and write once, parameters included, wherever they find them.
        flops: two per multiply-add.
        memory: the least time in which the bytes are read and written.
        arithmetic: the least time of the FLOPs.
    """

    name: str
    op: str
    layer: str
    kernel: str
    launches: int
    seconds: float
    low: float
    high: float
    bytes: int
    flops: int
    memory: float
    arithmetic: float

    @property
    def bound(self) -> float:
        """The least time: of the memory or of the arithmetic, whichever is longer."""
        return max(self.memory, self.arithmetic)


@dataclass(frozen=True)
class GpuProfile:
    """Each kernel of a network on a GPU; ``print`` shows a table. See :func:`effkernels.profile`.

    Times are in seconds, of the device but for ``host``, and means of the middle half of the runs.

    Attributes:
        model: the model's name, or the name of its class.
        input_shape, dtype: of the input.
        device: the name of the GPU.
        memory_rate, flop_rate: bytes and FLOPs a second, for bounds; 0 where the device does not say.
        runs: that were timed.
        rows: in the order in which they ran.
        event: what an event takes, which was subtracted from the time of each launch.
        apart: the network's launches one after the other, without events between them: what the rows would add up to
            if the device took no time from the end of a launch to the event after it.
        whole: the network as it runs without a profile, with launches that overlap where the device can.
        host: what the host takes for a call of the model, without waiting for the device.
        queued: whether the host had launched everything before the device began. Else times may contain waiting.
        around: what ran before and after the network, and was not timed.
    """

    model: str
    input_shape: tuple[int, ...]
    dtype: torch.dtype
    device: str
    memory_rate: float
    flop_rate: float
    runs: int
    rows: tuple[GpuProfileRow, ...] = field(repr=False)
    event: float
    apart: float
    whole: float
    host: float
    queued: bool
    around: str

    @property
    def seconds(self) -> float:
        """The sum over all rows."""
        return sum(row.seconds for row in self.rows)

    @property
    def bound(self) -> float:
        """The sum over all rows."""
        return sum(row.bound for row in self.rows)

    @property
    def launches(self) -> int:
        """The sum over all rows."""
        return sum(row.launches for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """All of it, of types that JSON has."""
        return {
            **{name: value for name, value in vars(self).items() if name != "rows"},
            "input_shape": list(self.input_shape),
            "dtype": dtype_name(self.dtype),
            "seconds": self.seconds,
            "bound": self.bound,
            "launches": self.launches,
            "rows": [{**asdict(row), "bound": row.bound} for row in self.rows],
        }

    def __str__(self) -> str:
        """Two tables in microseconds: by kind of layer, and by kernel."""
        images = f"{shape_text(self.input_shape)} {dtype_name(self.dtype)}"
        kernels = count_text(self.launches, "kernel")
        lines = [
            f"{self.model}, {images} on {self.device}: {kernels} launched, {_ms(self.seconds)} ms, bound "
            f"{_ms(self.bound)} ms ({_percent(self.bound, self.seconds)})",
            f"all of them without events between them: {_ms(self.apart)} ms; as they run without a profile: "
            f"{_ms(self.whole)} ms; the host takes {_ms(self.host)} ms for a call",
            f"an event takes {_us(self.event)} us, which is subtracted; bounds from {self.memory_rate / 1e9:.0f} GB/s "
            f"and {self.flop_rate / 1e12:.1f} TFLOP/s",
        ]
        if not self.queued:
            lines.append("the host was too slow: times may contain waiting for it")
        if self.around:
            lines.append(f"not timed: {self.around}")
        return "\n".join(
            (
                *lines,
                "",
                *aligned(list(self._kinds()), text_columns=1),
                "",
                *aligned(list(self._kernels()), text_columns=2),
            )
        )

    def _kinds(self) -> Iterator[list[str]]:
        yield ["", *_COLUMNS]
        kinds: dict[str, list[GpuProfileRow]] = {}
        for row in self.rows:
            kinds.setdefault(row.layer or row.op, []).append(row)
        for kind, rows in kinds.items():
            yield [kind, *self._cells(rows)]

    def _kernels(self) -> Iterator[list[str]]:
        yield ["layer", "kernel", *_COLUMNS, "quartiles"]
        for row in self.rows:
            spread = f"{_us(row.low)}-{_us(row.high)}"
            yield [row.name, row.kernel, *self._cells([row]), spread]
        yield ["total", "", *self._cells(self.rows), ""]

    def _cells(self, rows: Sequence[GpuProfileRow]) -> list[str]:
        seconds, bound = sum(row.seconds for row in rows), sum(row.bound for row in rows)
        return [
            str(sum(row.launches for row in rows)),
            _us(seconds),
            _percent(seconds, self.seconds),
            f"{sum(row.bytes for row in rows) / 1e6:.3f}",
            f"{sum(row.flops for row in rows) / 1e9:.3f}",
            _us(bound),
            _percent(bound, seconds),
        ]


_COLUMNS = ("launches", "us", "share", "MB", "GFLOPs", "bound", "reached")


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:.1f}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if part and whole else "-"


def profile_on_gpu(
    model: nn.Module,
    input: Tensor,
    runs: int,
    memory_rate: float | None = None,
    flop_rate: float | None = None,
) -> GpuProfile:
    """See :func:`effkernels.profile`."""
    timer, status = launch_timing.timer_of(_BACKEND), dispatch.backends()[_BACKEND]
    if timer is None or not status.available:
        raise ValueError(f"profile: the cuda backend is not available: {status.reason}")
    with torch.cuda.device(input.device):
        return profile_launches(
            model,
            input,
            timer,
            runs,
            device=torch.cuda.get_device_name(input.device),
            rates=rates_of(timer, input, weight_dtype(model), memory_rate, flop_rate),
            wait=torch.cuda.synchronize,
        )


def rates_of(
    timer: LaunchTimer,
    probe: Tensor,
    dtype: torch.dtype,
    memory_rate: float | None,
    flop_rate: float | None,
) -> tuple[float, float]:
    """Bytes and FLOPs a second: those that are given, and else those of the device of ``probe``, for this dtype."""
    found = timer.rates(probe)
    flops = found.vector if dtype == torch.float32 else found.product
    return memory_rate or found.memory, flop_rate or flops


def profile_launches(
    model: nn.Module,
    input: Tensor,
    timer: LaunchTimer,
    runs: int,
    *,
    device: str,
    rates: tuple[float, float],
    wait: Callable[[], object],
) -> GpuProfile:
    """The profile of a model whose network runs on the cuda backend.

    Args:
        device: its name.
        rates: bytes and FLOPs a second.
        wait: waits for the device.
    """
    steps = steps_of(model, input, _BACKEND)
    stopwatch = _Stopwatch(timer, lambda: model(input))
    _warm_up(stopwatch, wait)
    each, apart, whole, host = [], [], [], []
    for _ in range(runs):
        each.append(stopwatch("each launch"))
        apart.append(stopwatch("apart"))
        whole.append(stopwatch("whole"))
        wait()
        host.append(_seconds(lambda: model(input)))
    wait()
    event = middle([run.nothing for run in each])
    return GpuProfile(
        model=model_name(model),
        input_shape=tuple(input.shape),
        dtype=input.dtype,
        device=device,
        memory_rate=rates[0],
        flop_rate=rates[1],
        runs=runs,
        rows=tuple(_rows(steps, each, event, rates)),
        event=event,
        apart=middle([run.whole - event for run in apart]),
        whole=middle([run.whole - event for run in whole]),
        host=middle(host),
        queued=all(run.queued for run in (*each, *apart, *whole)),
        around=rows_text(steps.around),
    )


class _Stopwatch:
    """Times calls of a model with one network, which is launched before the device begins."""

    def __init__(self, timer: LaunchTimer, run: Callable[[], Any]) -> None:
        self.timer, self.run = timer, run
        self.hold_up = _HOLD_UP

    def __call__(self, timed: Timed) -> TimedRun:
        """One call; another, held up for longer, where the host was not done when the device began."""
        while True:
            found = self.once(timed)
            if found.queued or self.hold_up >= _MOST_HOLD_UP:
                return found
            self.hold_up *= 2

    def once(self, timed: Timed) -> TimedRun:
        """One call."""
        self.timer.time(timed, self.hold_up)
        try:
            self.run()
        finally:
            runs = self.timer.time(None)
        if len(runs) != 1:
            raise ValueError(
                f"profile: the model runs {len(runs)} networks and blocks: profile one of them at a time"
            )
        return runs[0]


def _warm_up(stopwatch: _Stopwatch, wait: Callable[[], object]) -> None:
    launches = len(stopwatch.once("each launch").launches)
    stopwatch.hold_up += launches * _HOLD_UP_OF_A_LAUNCH
    end = time.perf_counter() + _WARM_UP_SECONDS
    passes = 1
    while passes < _WARM_UP or time.perf_counter() < end:
        stopwatch.run()
        wait()
        passes += 1


def _seconds(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def middle(values: Sequence[float]) -> float:
    """The mean of the middle half. Unlike the median it is finer than the clock: some events count microseconds."""
    ordered, quarter = sorted(values), len(values) // 4
    return fmean(ordered[quarter : len(ordered) - quarter])


def _rows(
    steps: Steps, runs: Sequence[TimedRun], event: float, rates: tuple[float, float]
) -> Iterator[GpuProfileRow]:
    launches = runs[0].launches
    rows: dict[tuple[int, str, str], list[int]] = {}
    for i, launch in enumerate(launches):
        rows.setdefault((launch.step, launch.layer, launch.kernel), []).append(i)
    for (step, layer, kernel), own in rows.items():
        spent = [sum(max(0.0, run.seconds[i] - event) for i in own) for run in runs]
        low, _, high = quartiles(spent)
        moved, flops = (sum(getattr(launches[i], n) for i in own) for n in ("bytes", "flops"))
        row = steps.rows[step]
        yield GpuProfileRow(
            name=f"{row.name}.{layer}" if layer else row.name,
            op=row.op,
            layer=layer,
            kernel=kernel,
            launches=len(own),
            seconds=middle(spent),
            low=low,
            high=high,
            bytes=moved,
            flops=flops,
            memory=moved / rates[0] if rates[0] else 0.0,
            arithmetic=flops / rates[1] if rates[1] else 0.0,
        )
