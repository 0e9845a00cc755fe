"""Latency of small networks on this device, measured in turns and kept in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch

from effkernels.studies.architecture import Architecture
from effkernels.studies.base import SMALL, Base
from effkernels.studies.training import one_thread
from effkernels.timing import in_turns

_FEWEST_ROUNDS, _MOST_ROUNDS, _CALLS = 5, 15, 5
_FASHION_MNIST = (10, 1)
_SECONDS = 0.05
"""For how long networks take turns beyond the fewest rounds, for each of them."""


class Latencies:
    """Measured once and kept in a file: an interrupted study goes on with the same costs.

    What is measured later takes turns with the base, and is scaled by how the base does now: latencies of one file can
    be compared, also where the machine was busier in between.

    Args:
        path: of the JSON file; it belongs to one machine.
        base: what the networks scale.

    Raises:
        ValueError: the file is something else, or cannot be written.
    """

    def __init__(self, path: Path, base: Base = SMALL) -> None:
        self._path, self._base = path, base
        try:
            known = json.loads(path.read_text()) if path.exists() else {}
            self._known = {str(name): float(seconds) for name, seconds in known.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            raise ValueError(f"{path} holds no latencies, or is damaged: remove it") from None

    def __call__(self, architecture: Architecture) -> float:
        """Seconds of one picture in one thread."""
        return self.of([architecture])[0]

    def of(self, architectures: Sequence[Architecture]) -> list[float]:
        """Seconds of several; those that are not known yet are measured together."""
        names = [self._name(architecture) for architecture in architectures]
        missing = {
            name: architecture
            for name, architecture in zip(names, architectures, strict=True)
            if name not in self._known
        }
        if missing:
            self._measure(missing)
        return [self._known[name] for name in names]

    def _name(self, architecture: Architecture) -> str:
        """Of a network with these classes and channels; without them that of Fashion-MNIST's."""
        document = architecture.to_json()
        shape = self._base.num_classes, self._base.in_channels
        if shape != _FASHION_MNIST:
            document["classes"], document["channels"] = shape
        return json.dumps(document)

    def _measure(self, missing: dict[str, Architecture]) -> None:
        base = self._base.network
        all_of_them = {self._name(base): base, **missing}
        seconds = latencies(list(all_of_them.values()), self._base)
        scale = self._known.get(self._name(base), seconds[0]) / seconds[0]
        measured = {name: scale * s for name, s in zip(all_of_them, seconds, strict=True)}
        self._known = {**measured, **self._known}
        partial = self._path.with_name(f".{self._path.name}.partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(self._known))
            os.replace(partial, self._path)
        except OSError as error:
            raise ValueError(f"{self._path} cannot be written: {error.strerror or error}") from None


@torch.no_grad()
def latencies(architectures: Sequence[Architecture], base: Base = SMALL) -> list[float]:
    """Median seconds of fused networks on one picture in one thread of this processor, timed in turns."""
    with one_thread():
        runs = [_call(architecture, base) for architecture in architectures]
        rounds = in_turns(
            runs,
            seconds=_SECONDS * len(runs),
            fewest=_FEWEST_ROUNDS,
            most=_MOST_ROUNDS,
            calls=[_CALLS] * len(runs),
            warm_up=1,
        )
    return [median(took) / 1e3 for took in zip(*rounds, strict=True)]


def latency(architecture: Architecture, base: Base = SMALL) -> float:
    """Median seconds of a fused network on one picture in one thread of this processor."""
    return latencies([architecture], base)[0]


def _call(architecture: Architecture, base: Base) -> Callable[[], object]:
    side = architecture.config.resolution
    model = architecture.build(base.num_classes, base.in_channels).eval().fuse()
    image = torch.zeros(1, base.in_channels, side, side)
    return lambda: model(image)
