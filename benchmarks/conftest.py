"""The benchmarks under pytest: options, one session for all rows, tables at the end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from benchmarks.cases import Case, Suite, suites
from benchmarks.harness.device import TYPES, Device, default_device
from benchmarks.harness.session import Session
from benchmarks.report.results import Row
from benchmarks.report.tables import section
from benchmarks.run import JSON, begin, run

MeasuredRow = Callable[[Suite, Case], Row]

_rows = pytest.StashKey[dict[tuple[str, str], Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="benchmark every case and contestant instead of the default matrix",
    )
    parser.addoption(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="save rows in FOLDER/report.json as they are measured, and skip those already there",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "contestant" in metafunc.fixturenames:
        rows = [
            pytest.param(suite, case, contestant, id=f"{suite.name}-{case.key}-{contestant.name}")
            for suite in suites(full=metafunc.config.getoption("--full"), device=_device())
            for case in suite.cases
            for contestant in suite.contestants
        ]
        metafunc.parametrize(("suite", "case", "contestant"), rows)


def _device() -> Device:
    kind = default_device()
    return Device(kind, TYPES[kind][0])


@pytest.fixture(scope="session")
def measured_row(request: pytest.FixtureRequest) -> Generator[MeasuredRow, None, None]:
    """Measures the row of a case, with all contestants, when the first of them is requested."""
    terminal = request.config.pluginmanager.getplugin("terminalreporter")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    rows = request.config.stash.setdefault(_rows, {})

    start = time.monotonic()

    def say(line: str) -> None:
        if terminal is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                terminal.ensure_newline()
                terminal.write_line(f"[{time.monotonic() - start:4.0f} s] {line}")

    with Session(say=say) as session:
        machine = session.machine()
        ours = machine["effkernels"]
        say(f"effkernels {ours['package']}, commit {machine['commit']}: {ours['backends']}")
        path = (request.config.getoption("--keep") or session.folder) / JSON
        settings = {"full": request.config.getoption("--full"), **dataclasses.asdict(_device())}
        report = begin(path, machine, settings, resume=True)

        def measure(suite: Suite, case: Case) -> Row:
            key = suite.name, case.key
            if key not in rows:
                run(report, path, session, [dataclasses.replace(suite, cases=(case,))], say)
                row = report.find(*key)
                assert row is not None
                rows[key] = row
            return rows[key]

        yield measure


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = list(terminalreporter.config.stash.get(_rows, {}).values())
    for suite in dict.fromkeys(row.suite for row in rows):
        terminalreporter.section(suite)
        terminalreporter.write_line(section(suite, [row for row in rows if row.suite == suite]))
