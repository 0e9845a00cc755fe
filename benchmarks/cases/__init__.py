"""What is measured, and with whom: a file for each kind of case, which gives its suites.

A new kind is a file with a function ``suites``: all of them are read.
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

from benchmarks.contestants import Contestant, joining
from benchmarks.harness.alternate import Timing
from benchmarks.harness.device import CPU, TYPES, Device
from benchmarks.harness.problem import Answer, Tensors
from specs.work import Work


class Case(Protocol):
    """One thing that is computed."""

    @property
    def device(self) -> Device:
        """Where, and in which type."""

    @property
    def batch(self) -> int:
        """Images."""

    @property
    def key(self) -> str:
        """Unique among all cases, and fit for a file name."""

    @property
    def title(self) -> str:
        """For people."""

    @property
    def work(self) -> Work:
        """What it cannot do without."""

    @property
    def clock(self) -> str:
        """Which of :data:`benchmarks.harness.worker.CLOCKS` times it."""

    def described(self) -> dict[str, Any]:
        """Plain data, for a report."""

    def make(self, folder: Path) -> tuple[Tensors, dict[str, Answer]]:
        """Random inputs, and what comes of the checked images of them."""


@dataclass(frozen=True)
class Suite:
    """Cases of one kind and who computes them.

    ``metric``: "time"; "host", for which there is no bound; or, of fresh processes, "memory" or "startup". ``table``:
    which of :mod:`benchmarks.report.tables` shows it. ``growth``: part of the report, not of pytest's default matrix.
    ``place``: where it stands in a report, the lowest first.
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
    """How much is asked for: ``full`` is every case and contestant; on which device."""

    full: bool
    device: Device

    @property
    def on_cpu(self) -> bool:
        """Or on a GPU."""
        return self.device.kind == "cpu"

    def who(self, *groups: str) -> tuple[Contestant, ...]:
        """Who joins one of these groups."""
        return joining(*groups, kind=self.device.kind, full=self.full)


def suites(*, full: bool = False, growth: bool = False, device: Device = CPU) -> list[Suite]:
    """The default matrix; with ``growth`` the cost as work grows, with ``full`` everything."""
    chosen = [suite for suite in _all(Scope(full, device)) if growth or full or not suite.growth]
    return sorted(chosen, key=lambda suite: suite.place)


def _all(scope: Scope) -> Iterator[Suite]:
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        if hasattr(module, "suites"):
            yield from module.suites(scope)


@functools.cache
def catalogue() -> dict[str, Suite]:
    """Every suite that there is on any device by its name, in the order of reports, without cases."""
    devices = [Device(kind, types[0]) for kind, types in TYPES.items()]
    found = [suite for device in devices for suite in suites(full=True, device=device)]
    ordered = sorted(found, key=lambda suite: suite.place)
    return {suite.name: dataclasses.replace(suite, cases=(), contestants=()) for suite in ordered}
