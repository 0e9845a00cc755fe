"""The measurements as data: rows of outcomes, saved in one JSON file after every row."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.alternate import Spread, paired, spread
from benchmarks.harness.device import CPU, Device

SCHEMA = 1


@dataclass
class Outcome:
    """One contestant in one row.

    ``status``: "ok", "missing" (not on this machine), "mismatch" (its result was wrong, so it was not timed) or
    "failed"; ``reason`` explains the last three. ``rounds`` are the median seconds of each round. ``error`` and
    ``allowed`` are the largest difference from float64 and the tolerance. ``awake`` is the processor time per
    second that it used while others were measured.
    """

    contestant: str
    family: str
    status: str
    reason: str | None = None
    iterations: int = 0
    rounds: list[float] = field(default_factory=list)
    error: float | None = None
    allowed: float | None = None
    awake: float = 0.0
    build_seconds: float = 0.0
    peak_bytes: int | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> Spread | None:
        """Median and quartiles over the rounds; None if it was not timed."""
        return spread(self.rounds) if self.status == "ok" and self.rounds else None


@dataclass
class Row:
    """One case with all of its contestants.

    ``bytes`` and ``macs`` are the minimum for the case; ``bound`` is the minimum time for them on this machine,
    in seconds, and ``bound_kind`` says whether "memory" or "arithmetic" determines it. ``foreign`` is the
    processor time per second that other programs used during the measurements.
    """

    suite: str
    key: str
    title: str
    images: int
    bytes: int
    macs: int
    case: dict[str, Any]
    bound: float | None = None
    bound_kind: str | None = None
    foreign: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)

    def outcome(self, contestant: str) -> Outcome | None:
        """The outcome of this contestant, if it took part."""
        return next((o for o in self.outcomes if o.contestant == contestant), None)

    def timed(self) -> list[Outcome]:
        """The outcomes that have a time."""
        return [o for o in self.outcomes if o.seconds is not None]

    def best(self, family: str) -> Outcome | None:
        """The fastest of a family, by median."""
        members = [o for o in self.timed() if o.family == family]
        return min(members, key=lambda o: spread(o.rounds).median, default=None)

    def speedup(self, over: Outcome, ours: str = "effkernels") -> Spread | None:
        """How many times as fast as ``over`` ours is: median and quartiles of the ratios within the rounds."""
        mine = self.outcome(ours)
        if mine is None or mine.seconds is None or over.seconds is None:
            return None
        return paired(over.rounds, mine.rounds)

    def share_of_bound(self, outcome: Outcome) -> float | None:
        """The minimum time over the time taken: 1 is as fast as the machine allows."""
        taken = outcome.seconds
        return None if self.bound is None or taken is None else self.bound / taken.median


@dataclass
class Report:
    """All rows of one run. ``machine`` and ``limits`` as :mod:`benchmarks.harness.machine` gives them."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    limits: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    started: str = ""

    @property
    def place(self) -> str:
        """The device and the type, as readable text."""
        device = Device(self.settings.get("kind", CPU.kind), self.settings.get("type", CPU.type))
        if device.kind == "cuda":
            return f"{self.machine['gpu']['name']}, {device.title}"
        return f"{self.machine['cpu']}, {self.machine['threads']} threads, {device.title}"

    def find(self, suite: str, key: str) -> Row | None:
        """The row of a case, if it has been measured."""
        return next((r for r in self.rows if (r.suite, r.key) == (suite, key)), None)

    def of(self, suite: str) -> list[Row]:
        """The rows of one suite, in order."""
        return [row for row in self.rows if row.suite == suite]

    def save(self, path: Path) -> None:
        """Write the whole file atomically, so that an interrupted run leaves the previous one intact."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1) + "\n")
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: the file has another schema version, or is not a report.
        """
        try:
            data = json.loads(path.read_text())
            schema = data.pop("schema")
        except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{path} is not a benchmark report: {error!r}") from error
        if schema != SCHEMA:
            raise ValueError(f"{path} has schema version {schema}, this program reads {SCHEMA}")
        rows = [
            Row(**{**row, "outcomes": [Outcome(**o) for o in row["outcomes"]]})
            for row in data.pop("rows")
        ]
        return cls(rows=rows, **data)


def families(rows: Iterable[Row]) -> list[str]:
    """The families that took part, except ours, in order."""
    found = [o.family for row in rows for o in row.outcomes]
    return [f for f in dict.fromkeys(found) if f != "effkernels"]
