"""A named model beside a network of torchvision's, timed in paired turns: the paper's Table 4 measured here."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from effkernels.analysis.choice import Latency
from effkernels.analysis.paper import TABLE_4, PublishedLatency
from effkernels.models import create_model, get_config
from effkernels.models.options import as_dtype
from effkernels.models.scaling import check_count, check_number
from effkernels.timing import device_name, in_turns, milliseconds, quartiles
from effkernels.train.extras import need

__all__ = ["Beside", "Timed", "measure_beside"]

_PROBE_CALLS = 3
_TURN = 0.05  # seconds of calls in one turn of a network; always at least one call
_FEWEST_ROUNDS, _MOST_ROUNDS = 5, 25


@dataclass(frozen=True)
class Timed:
    """One network as it was run.

    Attributes:
        model: its name.
        by: ``effkernels`` or ``torchvision``.
        execution: how it was run, in words.
        resolution: side of the images in pixels.
        parameters: all of them, with a classifier of 1000 classes.
        latency: seconds of a call with the whole batch.
    """

    model: str
    by: str
    execution: str
    resolution: int
    parameters: int
    latency: Latency


@dataclass(frozen=True)
class Beside:
    """What :func:`measure_beside` found.

    Attributes:
        ours: the model by this package.
        same: the same network by torchvision, where it has that; else None. It shows how much of the ratio is owed to
            the kernels.
        other: the network beside it.
        ratio: time of ``other`` over that of ``ours``, both of one round: median and quartiles of the rounds.
        ratio_by_torchvision: time of ``other`` over that of ``same``.
        published: the paper's row for these two networks, or None.
        device, machine: on what was measured, and that device's name.
        threads, batch_size, dtype, rounds: as measured.
    """

    ours: Timed
    same: Timed | None
    other: Timed
    ratio: Latency
    ratio_by_torchvision: Latency | None
    published: PublishedLatency | None
    device: torch.device
    machine: str
    threads: int
    batch_size: int
    dtype: torch.dtype
    rounds: int

    @property
    def rows(self) -> list[Timed]:
        """Two or three networks."""
        return [row for row in (self.ours, self.same, self.other) if row is not None]

    def as_dict(self) -> dict[str, Any]:
        """All of it, of types that JSON has. Seconds and ratios."""
        return {**asdict(self), "device": str(self.device), "dtype": _title(self.dtype)}


def _title(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def measure_beside(
    other: str,
    model: str = "efficientnet_b1",
    *,
    device: torch.device | str | None = None,
    batch_size: int = 1,
    dtype: torch.dtype | str = torch.float32,
    seconds: float = 60.0,
    watch: Callable[[str], object] | None = None,
) -> Beside:
    """Time a named model and a network of torchvision's in turns, so that what slows the machine slows both.

    Weights are random: they do not change the time. torchvision's networks run eagerly, in the fastest of four ways:
    contiguous or channels_last, BatchNorm as a layer or folded into the convolution before it. Each has images of its
    own size.

    Args:
        other: of torchvision's classifiers, such as ``resnet152``.
        model: a named model of this package.
        device: to run on; PyTorch's default where None. Threads are those of ``torch.get_num_threads()``.
        batch_size: images of a call.
        dtype: of weights and activations.
        seconds: for how long they take turns, at least 5 and at most 25 rounds.
        watch: is told the name of each network before it is first run.

    Raises:
        ValueError: torchvision has no such classifier, no model has this name, or a number is out of range.
        TypeError: an argument of the wrong type.
        ImportError: torchvision is not installed.
    """
    check_count("batch_size", batch_size)
    check_number("seconds", seconds, minimum=0.0)
    dtype = as_dtype("dtype", dtype)
    side = get_config(model).resolution
    library = need("torchvision", "a network of torchvision's beside a model")
    known = library.models.list_models(module=library.models)
    if other not in known:
        close = difflib.get_close_matches(other, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "such as resnet50 and resnet152"
        raise ValueError(f"torchvision has no classifier named {other!r}: {hint}")
    where = torch.get_default_device() if device is None else torch.device(device)
    tell = watch or (lambda name: None)
    place = _Place(where, batch_size, dtype)
    tell(model)
    network = create_model(model, device=where, dtype=dtype).eval()
    about = [
        partial(Timed, model, "effkernels", "as it runs by default", side, _parameters(network))
    ]
    runs = [place.call(network, side, torch.channels_last)]
    theirs = [(model, side)] if model in known else []
    for name, pixels in (*theirs, (other, _size(library, other))):
        tell(f"torchvision's {name}")
        made = library.models.get_model(name, weights=None).eval().to(where, dtype)
        execution, run = place.fastest(made, pixels)
        about.append(partial(Timed, name, "torchvision", execution, pixels, _parameters(made)))
        runs.append(run)
    rounds = in_turns(
        runs,
        seconds=seconds,
        fewest=_FEWEST_ROUNDS,
        most=_MOST_ROUNDS,
        calls=[max(1, round(_TURN / place.fastest_of(run))) for run in runs],
    )
    timed = [
        what(_latency([1e-3 * took[index] for took in rounds])) for index, what in enumerate(about)
    ]
    ours, last = timed[0], timed[-1]
    same = timed[1] if theirs else None
    return Beside(
        ours=ours,
        same=same,
        other=last,
        ratio=_latency([took[-1] / took[0] for took in rounds]),
        ratio_by_torchvision=_latency([took[-1] / took[1] for took in rounds]) if same else None,
        published=next((r for r in TABLE_4 if (r.model, r.torchvision) == (model, other)), None),
        device=where,
        machine=device_name(where),
        threads=torch.get_num_threads(),
        batch_size=batch_size,
        dtype=dtype,
        rounds=len(rounds),
    )


def _latency(values: list[float]) -> Latency:
    low, middle, high = quartiles(values)
    return Latency(middle, low, high)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _size(library: Any, name: str) -> int:
    """The side of the images that torchvision's default weights of this network take."""
    weights = library.models.get_model_weights(name).DEFAULT
    return int(weights.transforms().crop_size[0])


@dataclass(frozen=True)
class _Place:
    device: torch.device
    batch_size: int
    dtype: torch.dtype

    def call(
        self, network: nn.Module, side: int, layout: torch.memory_format
    ) -> Callable[[], object]:
        """A call that returns when it is done; it has been called before."""
        images = torch.zeros(self.batch_size, 3, side, side, device=self.device, dtype=self.dtype)
        images = images.to(memory_format=layout)

        @torch.inference_mode()
        def run() -> None:
            network(images)
            if images.is_cuda:
                torch.cuda.synchronize(images.device)

        run()
        return run

    def fastest_of(self, run: Callable[[], object]) -> float:
        """Seconds of the fastest of some calls."""
        return min(milliseconds(run) for _ in range(_PROBE_CALLS)) / 1e3

    def fastest(self, network: nn.Module, side: int) -> tuple[str, Callable[[], object]]:
        """The way to run a network that takes the least time, in words and as a call."""
        layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
        runs = {
            f"eager, {title}{how}": self.call(_copy(form, layout), side, layout)
            for how, form in _forms(network)
            for title, layout in layouts.items()
        }
        return min(runs.items(), key=lambda row: self.fastest_of(row[1]))


def _copy(network: Any, layout: torch.memory_format) -> nn.Module:
    """``Any``, because the types of older releases of PyTorch do not know the argument."""
    copied: nn.Module = copy.deepcopy(network).to(memory_format=layout)
    return copied


def _forms(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The network as it is, and with each BatchNorm folded into the convolution before it where torch.fx can."""
    from torch.fx.experimental.optimization import fuse
    from torch.fx.proxy import TraceError

    yield "", network
    try:
        yield ", BatchNorm folded", fuse(network)
    except TraceError:  # what the network does depends on its data
        return
