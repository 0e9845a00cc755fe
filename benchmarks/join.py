"""``python -m benchmarks.join FOLDER REPORT.json...``: joins partial reports of one machine into one report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report.results import Report, Row
from benchmarks.run import JSON, differences, place, render


def joined(parts: Sequence[Report]) -> Report:
    """All their rows, in order; if several have measured a case, the row with the most contestants.

    Raises:
        ValueError: a part is of another machine, version, commit, device or type than the first, so that the rows
            cannot be compared; the message says what differs.
    """
    first = parts[0]
    for part in parts[1:]:
        changed = [
            *differences(first.machine, part.machine),
            *differences(place(first.settings), place(part.settings)),
        ]
        if changed:
            raise ValueError(f"the reports do not belong together: {'; '.join(changed)}")
    rows: dict[tuple[str, str], Row] = {}
    for row in (row for part in parts for row in part.rows):
        before = rows.get((row.suite, row.key))
        if before is None or len(row.outcomes) > len(before.outcomes):
            rows[row.suite, row.key] = row
    settings = first.settings | {"full": any(part.settings["full"] for part in parts)}
    limits = next((part.limits for part in parts if part.limits), {})
    started = min(part.started for part in parts)
    return Report(first.machine, settings, limits, list(rows.values()), started)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks.join", description=__doc__)
    parser.add_argument("folder", type=Path, help="for report.json, report.md and the plots")
    parser.add_argument("reports", type=Path, nargs="+", metavar="REPORT.json")
    options = parser.parse_args(arguments)
    try:
        report = joined([Report.load(path) for path in options.reports])
    except ValueError as error:
        parser.error(str(error))
    report.save(options.folder / JSON)
    render(report, options.folder)
    print(f"{len(report.rows)} rows of {len(options.reports)} reports written to {options.folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
