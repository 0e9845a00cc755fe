"""What is measured, and by which contestants: one file per kind of case, which defines its suites.

A new kind is a file with a function ``suites``; every file here is read.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.contestants import Contestant, contestants_in
from benchmarks.harness.alternate import Timing
from benchmarks.harness.device import CPU, TYPES, Device
from benchmarks.harness.problem import Answer, Tensors
from specs.work import Work


class Case(Protocol):
    """One computation that is measured."""

    @property
    def device(self) -> Device:
        """The device and the type."""

    @property
    def batch(self) -> int:
        """Images."""

    @property
    def key(self) -> str:
        """Unique among all cases, and usable as a file name."""

    @property
    def title(self) -> str:
        """For people."""

    @property
    def work(self) -> Work:
        """The bytes and operations that it needs at least."""

    @property
    def clock(self) -> str:
        """Name of the clock that times it, in :data:`benchmarks.harness.worker.CLOCKS`."""

    def described(self) -> dict[str, Any]:
        """The case as plain data, for a report."""

    def make(self, folder: Path) -> tuple[Tensors, dict[str, Answer]]:
        """Random inputs, and the exact results for the checked images."""


@dataclass(frozen=True)
class Suite:
    """Cases of one kind and the contestants that compute them.

    ``metric``: "time"; "host", Python's time, which has no bound; or "memory" or "startup", measured in fresh
    processes. ``table``: the function of :mod:`benchmarks.report.tables` that shows it. ``growth``: part of the
    report, but not of pytest's default matrix. ``place``: its position in a report, lowest first.
    """

    name: str
    heading: str
    cases: tuple[Case, ...]
    contestants: tuple[Contestant, ...]
    timing: Timing
    table: str
    metric: str = "time"
    growth: bool = False
    place: int = 0


@dataclass(frozen=True)
class Scope:
    """How much is measured: ``full`` is every case and contestant; and on which device."""

    full: bool
    device: Device

    @property
    def on_cpu(self) -> bool:
        """Whether the device is the CPU, not a GPU."""
        return self.device.kind == "cpu"

    def contestants(self, *groups: str) -> tuple[Contestant, ...]:
        """The contestants that are in one of these groups."""
        return contestants_in(*groups, kind=self.device.kind, full=self.full)


def suites(*, full: bool = False, growth: bool = False, device: Device = CPU) -> list[Suite]:
    """The default matrix; with ``growth`` also the cost as work grows, with ``full`` everything."""
    chosen = [suite for suite in _all(Scope(full, device)) if growth or full or not suite.growth]
    return sorted(chosen, key=lambda suite: suite.place)


def _all(scope: Scope) -> Iterator[Suite]:
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        if hasattr(module, "suites"):
            yield from module.suites(scope)


@functools.cache
def catalogue() -> dict[str, Suite]:
    """All suites of all devices by name, in the order of reports, without cases."""
    devices = [Device(kind, types[0]) for kind, types in TYPES.items()]
    found = [suite for device in devices for suite in suites(full=True, device=device)]
    ordered = sorted(found, key=lambda suite: suite.place)
    return {suite.name: dataclasses.replace(suite, cases=(), contestants=()) for suite in ordered}
