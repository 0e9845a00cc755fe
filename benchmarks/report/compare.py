"""What changed between two reports, compared with the spread of the rounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.harness.alternate import spread
from benchmarks.report.results import Outcome, Report, Row
from benchmarks.report.tables import duration, size, table

SPREADS = 2.0
"""A median counts as changed only if it moved by at least this many interquartile ranges."""
LEAST = 0.03
"""And only if it moved by at least this fraction."""


@dataclass(frozen=True)
class Move:
    """One contestant in one row: ``change`` is new over old, ``spreads`` the difference in interquartile
    ranges.
    """

    row: str
    contestant: str
    old: str
    new: str
    change: float | None
    spreads: float | None

    @property
    def moved(self) -> bool:
        """Whether the change is more than noise; it always is if an outcome appeared or disappeared."""
        if self.change is None or self.spreads is None:
            return True
        return abs(self.change - 1) >= LEAST and self.spreads >= SPREADS


def moves(old: Report, new: Report) -> list[Move]:
    """Every contestant that is in both reports, or has a time in only one of them."""
    return [
        move
        for row in new.rows
        if (before := old.find(row.suite, row.key)) is not None
        for move in _row_moves(before, row)
    ]


def comparison(old: Report, new: Report) -> str:
    """Markdown: what changed, and how many did not."""
    everything = moves(old, new)
    moved = [move for move in everything if move.moved]
    lines = [
        [
            move.row,
            move.contestant,
            move.old,
            move.new,
            "" if move.change is None else f"{move.change:.2f}",
            "" if move.spreads is None else f"{move.spreads:.1f}",
        ]
        for move in sorted(moved, key=lambda m: m.change or 0.0)
    ]
    parts = [f"Against {old.started}, commit {old.machine.get('commit')}:"]
    here, there = (r.machine.get("cpu") for r in (new, old))
    if here != there:
        parts.append(f"Another machine: {there} then, {here} now.")
    if lines:
        head = ["row", "contestant", "then", "now", "now / then", "in interquartile ranges"]
        parts.append(table(head, lines))
    gone = [row for row in old.rows if new.find(row.suite, row.key) is None]
    parts.append(
        f"{len(moved)} of {len(everything)} moved by at least {SPREADS:g} interquartile ranges and "
        f"{LEAST:.0%}; {len(gone)} rows of the old report were not measured again."
    )
    return "\n\n".join(parts) + "\n"


def _row_moves(old: Row, new: Row) -> Iterator[Move]:
    for after in new.outcomes:
        before = old.outcome(after.contestant)
        if before is None or (before.status != "ok" and before.status == after.status):
            continue
        yield _move(f"{new.suite}: {new.title}", before, after)


def _move(row: str, before: Outcome, after: Outcome) -> Move:
    name = after.contestant
    if before.peak_bytes is not None and after.peak_bytes is not None:
        change = after.peak_bytes / before.peak_bytes
        # One pass has no spread; memory is reproducible to a few pages.
        distance = abs(change - 1) / LEAST * SPREADS
        return Move(row, name, size(before.peak_bytes), size(after.peak_bytes), change, distance)
    then, now = before.seconds, after.seconds
    if then is None or now is None:
        old, new = (
            o.status if s is None else duration(s.median) for o, s in ((before, then), (after, now))
        )
        return Move(row, name, old, new, None, None)
    width = max(spread([then.high - then.low, now.high - now.low]).high, 1e-12)
    return Move(
        row,
        name,
        duration(then.median),
        duration(now.median),
        now.median / then.median,
        abs(now.median - then.median) / width,
    )
