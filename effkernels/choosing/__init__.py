"""Which model for a budget: measures the named models on this device, and weighs published accuracy against what they
need.

The question is that of Tan and Le 2019 (arXiv 1905.11946), equation 2, asked of the models that have published weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from effkernels.analysis.accuracy import ACCURACIES, Accuracy
from effkernels.analysis.choice import (
    B_AND_LITE,
    Candidate,
    Latency,
    Limits,
    candidates,
    exceeded,
    mark_front,
)
from effkernels.choosing.beside import Beside, Timed, measure_beside
from effkernels.models import EfficientNet, create_model
from effkernels.models.options import as_dtype
from effkernels.models.scaling import check_count, check_number
from effkernels.timing import in_turns, milliseconds, quartiles

__all__ = [
    "ACCURACIES",
    "Accuracy",
    "Beside",
    "Candidate",
    "Choice",
    "Latency",
    "Limits",
    "Timed",
    "choose",
    "measure_beside",
]

_PROBE_CALLS = 3
_WARM_UP = 2
# A candidate whose fastest call took this many times the limit is not measured further, and nothing that costs more
# than it in every respect is run at all: that would have to be this much faster with more work.
_SURELY_SLOWER = 1.5
_TURN = 0.05  # seconds of calls in one turn of a candidate; always at least one call
_FEWEST_ROUNDS, _MOST_ROUNDS = 5, 25


@dataclass(frozen=True)
class Choice:
    """What :func:`choose` found.

    Attributes:
        limits: as given.
        device: on which was measured.
        threads: of PyTorch on the CPU.
        batch_size, dtype: of the calls.
        rounds: in which the candidates took turns; 0 where nothing had to be measured.
        rows: all candidates by rising MACs.
    """

    limits: Limits
    device: torch.device
    threads: int
    batch_size: int
    dtype: torch.dtype
    rounds: int
    rows: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate | None:
        """The candidate of the highest published accuracy within all limits; of equal ones that which needs least.

        None if none of those within the limits has a published accuracy.
        """
        axis = self.limits.axis
        known = [row for row in self.rows if row.fits and row.accuracy is not None]
        return max(
            known,
            key=lambda row: (
                row.accuracy.top1 if row.accuracy else 0.0,
                -(row.amount(axis) or 0.0),
            ),
            default=None,
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it, of types that JSON has. Seconds, bytes and counts."""
        best = self.best
        return {
            "limits": self.limits.given(),
            "device": str(self.device),
            "threads": self.threads,
            "batch_size": self.batch_size,
            "dtype": str(self.dtype).removeprefix("torch."),
            "rounds": self.rounds,
            "best": None if best is None else {"model": best.model, "resolution": best.resolution},
            "rows": [asdict(row) for row in self.rows],
        }


def choose(
    *,
    latency: float | None = None,
    memory: float | None = None,
    macs: float | None = None,
    parameters: float | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 1,
    dtype: torch.dtype | str = torch.float32,
    models: Sequence[str] = B_AND_LITE,
    every_source: bool = False,
    seconds: float = 60.0,
    watch: Callable[[str], object] | None = None,
) -> Choice:
    """Find the most accurate of the named models within limits, and time those that may be within them here.

    Each model is a candidate at its own size of images, at those of its neighbours in its family, and at sizes for
    which an accuracy is published. An accuracy counts only for the weights and the size that it was published for: at
    other sizes a candidate has a latency and no accuracy. Weights are random here: they do not change the time.

    What the cost model puts above a limit on memory, MACs or parameters is not run. With a limit on latency,
    candidates are tried by rising MACs; one whose fastest call takes 1.5 times the limit is left out, and with it all
    that compute, hold and move more than it. The others then take turns, A B C, C B A ..., so that what slows the
    machine slows all of them; the median over the turns counts.

    Args:
        latency, memory, macs, parameters: see :class:`Limits`; at least one.
        device: to run on; PyTorch's default where None.
        batch_size: images of a call.
        dtype: of weights and activations.
        models: names, or patterns as in a shell; B0 to B8 and Lite0 to Lite4 by default.
        every_source: count the accuracies of all weights in ``ACCURACIES``; otherwise of those alone that
            ``weights="imagenet"`` loads.
        seconds: for how long candidates take turns, at least 5 and at most 25 rounds.
        watch: is told the name of each candidate that is going to be run.

    Raises:
        ValueError: no limit, or one below what the smallest candidate needs (the message says how much that is); a
            name that no model has; a number out of range.
        TypeError: an argument of the wrong type.
    """
    limits = Limits(latency, memory, macs, parameters)
    check_count("batch_size", batch_size)
    check_number("seconds", seconds, minimum=0.0)
    dtype = as_dtype("dtype", dtype)
    where = torch.get_default_device() if device is None else torch.device(device)
    rows = candidates(models, batch_size=batch_size, dtype=dtype, every_source=every_source)
    rows = [replace(row, excluded=_above(exceeded(row, limits))) for row in rows]
    _check_some_left(rows, limits)
    measured = _Measured(where, batch_size, dtype, watch or (lambda name: None))
    rows, rounds = measured.latencies(rows, limits.latency, seconds)
    rows = [_judged(row, limits) for row in rows]
    if not any(row.fits for row in rows):
        raise ValueError(_too_little_time(rows, limits))
    front = mark_front(rows, limits.axis)
    return Choice(
        limits=limits,
        device=where,
        threads=torch.get_num_threads(),
        batch_size=batch_size,
        dtype=dtype,
        rounds=rounds,
        rows=tuple(replace(r, on_front=(r.model, r.resolution) in front) for r in rows),
    )


def _above(names: Sequence[str]) -> str:
    return f"above the limit of {' and of '.join(names)}" if names else ""


def _judged(row: Candidate, limits: Limits) -> Candidate:
    above = exceeded(row, limits)
    return replace(row, fits=not row.excluded and not above, excluded=row.excluded or _above(above))


def _check_some_left(rows: Sequence[Candidate], limits: Limits) -> None:
    """Raises ValueError if the limits leave no candidate; it names those that no candidate keeps, or says that they
    contradict each other.
    """
    if any(not row.excluded for row in rows):
        return
    given = {name: limit for name, limit in limits.given().items() if name != "latency"}
    least = {name: min(rows, key=lambda row: row.amount(name) or 0.0) for name in given}
    needed = {name: row.amount(name) or 0.0 for name, row in least.items()}
    small = [
        f"{name}={given[name]:.15g} is below the minimum of {needed[name]:.0f}, which {row.name} needs"
        for name, row in least.items()
        if needed[name] > given[name]
    ]
    listed = ", ".join(f"{name}={limit:.15g}" for name, limit in given.items())
    raise ValueError("; ".join(small) or f"no model is within {listed} at once: raise one of them")


def _too_little_time(rows: Sequence[Candidate], limits: Limits) -> str:
    timed = [row for row in rows if row.latency is not None]
    fastest = min(timed, key=lambda row: row.latency.median if row.latency else 0.0)
    took = fastest.latency.median if fastest.latency else 0.0
    return (
        f"latency={limits.latency:.15g} s is below what the fastest candidate takes here: {fastest.name} took "
        f"{1e3 * took:.3g} ms"
    )


class _Measured:
    """Runs candidates on one device. Models are made when they are needed, once for all sizes of images."""

    def __init__(
        self,
        device: torch.device,
        batch_size: int,
        dtype: torch.dtype,
        watch: Callable[[str], object],
    ) -> None:
        self.device = device
        self.batch_size = batch_size
        self.dtype = dtype
        self.watch = watch
        self._models: dict[str, EfficientNet] = {}

    def latencies(
        self, rows: Sequence[Candidate], limit: float | None, seconds: float
    ) -> tuple[list[Candidate], int]:
        """``rows`` with latencies, or with why there is none; and the number of rounds.

        Args:
            limit: in seconds; None to measure all that are not excluded.
            seconds: for how long to measure in turns.
        """
        found = list(rows)
        kept: list[int] = []
        runs: list[Callable[[], object]] = []
        calls: list[int] = []
        slow: list[Candidate] = []
        for place, row in enumerate(found):
            if row.excluded:
                continue
            cheaper = next((other for other in slow if row.costs_at_least(other)), None)
            if cheaper is not None and cheaper.latency is not None:
                took = f"{1e3 * cheaper.latency.median:.3g} ms"
                why = f"not run: it costs more than {cheaper.name}, which took {took}"
                found[place] = replace(row, excluded=why)
                continue
            self.watch(row.name)
            run = self._run(row)
            times = [milliseconds(run) / 1e3 for _ in range(_PROBE_CALLS)]
            if limit is not None and min(times) > _SURELY_SLOWER * limit:
                low, middle, high = quartiles(times)
                row = replace(
                    row, latency=Latency(middle, low, high), excluded="above the limit of latency"
                )
                found[place] = row
                slow.append(row)
                self._forget(row.model, [found[k].model for k in kept])
                continue
            kept.append(place)
            runs.append(run)
            calls.append(max(1, round(_TURN / min(times))))
        rounds = (
            in_turns(runs, seconds=seconds, fewest=_FEWEST_ROUNDS, most=_MOST_ROUNDS, calls=calls)
            if kept
            else []
        )
        for place, values in zip(kept, zip(*rounds, strict=True), strict=True):
            low, middle, high = (ms / 1e3 for ms in quartiles(values))
            found[place] = replace(found[place], latency=Latency(middle, low, high))
        return found, len(rounds)

    def _forget(self, model: str, used: Sequence[str]) -> None:
        """Let go of a model which no candidate that will be measured uses."""
        if model not in used:
            self._models.pop(model, None)

    def _run(self, row: Candidate) -> Callable[[], object]:
        """A call of the candidate that returns when it is done, after some that nobody times."""
        model = self._models.get(row.model)
        if model is None:
            model = create_model(row.model, device=self.device, dtype=self.dtype).eval()
            self._models[row.model] = model
        shape = (self.batch_size, model.in_channels, row.resolution, row.resolution)
        images = torch.zeros(shape, device=self.device, dtype=self.dtype)
        images = images.to(memory_format=torch.channels_last)

        @torch.inference_mode()
        def run() -> None:
            model(images)
            if images.is_cuda:
                torch.cuda.synchronize(images.device)

        for _ in range(_WARM_UP):
            run()
        return run
