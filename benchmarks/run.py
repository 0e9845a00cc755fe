"""``python -m benchmarks.report`` or ``benchmarks.run``: measures, and writes JSON, Markdown and plots.

JSON and Markdown are written after every row, so an interrupted run keeps its rows; ``--resume`` measures the
rest, and ``--render`` draws the plots of an existing report.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import ROOT
from benchmarks.cases import Suite, suites
from benchmarks.harness.device import TYPES, Device, default_device
from benchmarks.harness.machine import slug
from benchmarks.harness.session import Session
from benchmarks.report.compare import comparison
from benchmarks.report.plots import draw
from benchmarks.report.results import Report
from benchmarks.report.tables import markdown

RESULTS = ROOT / "benchmarks" / "results"
JSON = "report.json"
MARKDOWN = "report.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not options.render and default_device() != "cuda":
        parser.error("--device cuda: PyTorch finds no CUDA device here")
    if options.dtype not in (None, *TYPES[options.device]):
        parser.error(f"--dtype {options.dtype}: not available on this device ({options.device})")
    old = None if options.compare is None else Report.load(options.compare)
    device = Device(options.device, options.dtype or TYPES[options.device][0])
    chosen = [
        _narrowed(suite, options.only)
        for suite in suites(full=options.full, growth=True, device=device)
        if not options.suite or suite.name in options.suite
    ]
    start = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - start:6.0f} s] {line}", flush=True)

    if options.render:
        folder = options.output or options.render.parent
        report = Report.load(options.render)
    else:
        with Session(say=say) as session:
            machine = session.machine()
            folder = options.output or RESULTS / slug(machine, device)
            settings = {"full": options.full, **dataclasses.asdict(device)}
            report = begin(folder / JSON, machine, settings, resume=options.resume)
            run(report, folder / JSON, session, chosen, say)
    render(report, folder)
    say(f"written to {folder}")
    if old is not None:
        print(comparison(old, report))
    return 0


def begin(
    path: Path, machine: dict[str, object], settings: dict[str, object], *, resume: bool
) -> Report:
    """A new report, or the one at ``path``, to be continued.

    Raises:
        SystemExit: there is a report and ``resume`` is False; or it is of another machine, version or commit,
            so that its rows and new ones cannot be compared; the message says what differs.
    """
    if not path.exists():
        now = datetime.datetime.now(datetime.timezone.utc)
        return Report(machine, settings, started=f"{now:%Y-%m-%d %H:%M} UTC")
    if not resume:
        raise SystemExit(
            f"{path} exists: --resume measures what it lacks, --output writes elsewhere"
        )
    report = Report.load(path)
    changed = [
        *differences({key: report.machine.get(key) for key in machine}, machine),
        *differences(*(place(s) for s in (report.settings, settings))),
    ]
    if changed:
        raise SystemExit(f"{path} cannot be resumed: {'; '.join(changed)}")
    report.settings = settings
    return report


def place(settings: dict[str, object]) -> dict[str, object]:
    return {key: settings.get(key) for key in ("kind", "type")}


def differences(old: object, new: object, name: str = "") -> Iterator[str]:
    """The differences between two pieces of plain data, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
    elif old != new:
        yield f"{name} was {old}, now {new}"


def run(
    report: Report,
    path: Path,
    session: Session,
    chosen: Sequence[Suite],
    say: Callable[[str], None],
) -> None:
    """Measure every case for which the report has no complete row, and save after each."""
    for suite in chosen:
        wanted = {contestant.name for contestant in suite.contestants}
        for case in suite.cases:
            row = report.find(suite.name, case.key)
            if row is not None and wanted <= {o.contestant for o in row.outcomes}:
                say(f"{suite.name}: {case.title}: measured before")
                continue
            if row is not None:
                report.rows.remove(row)
            if (
                suite.metric == "time"
                and dataclasses.asdict(case.device).items() <= report.settings.items()
            ):
                report.limits = dataclasses.asdict(session.limits(case.device))
            report.rows.append(session.measure(suite, case))
            report.save(path)
            path.with_name(MARKDOWN).write_text(markdown(report))


def render(report: Report, folder: Path) -> None:
    """Write the Markdown and, if matplotlib is installed, the plots next to the JSON file."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(report)
    try:
        pictures = draw(report, folder)
    except ImportError as error:
        text += f"\nNo plots: {error}.\n"
    else:
        text += "".join(f"\n![{path.stem}]({path.name})\n" for path in pictures)
    (folder / MARKDOWN).write_text(text)


def _narrowed(suite: Suite, only: str | None) -> Suite:
    cases = tuple(case for case in suite.cases if only is None or only in case.key)
    return dataclasses.replace(suite, cases=cases)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.report", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every case and every contestant")
    parser.add_argument("--device", choices=sorted(TYPES), default=default_device())
    parser.add_argument(
        "--dtype",
        choices=TYPES["cuda"],
        help="by default float32 on a CPU and bfloat16 on a GPU; tf32 only on a GPU",
    )
    parser.add_argument(
        "--suite",
        action="append",
        choices=[suite.name for suite in suites(full=True)],
        help="only this suite; may be repeated",
    )
    parser.add_argument(
        "--output", type=Path, help="folder; benchmarks/results/<machine> if not given"
    )
    parser.add_argument("--only", metavar="TEXT", help="only cases with this in their key")
    parser.add_argument("--resume", action="store_true", help="keep the rows that the folder has")
    parser.add_argument(
        "--compare", type=Path, metavar="OLD.json", help="print what changed since this report"
    )
    parser.add_argument(
        "--render",
        type=Path,
        metavar="REPORT.json",
        help="measure nothing; write this report's tables and plots again",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
