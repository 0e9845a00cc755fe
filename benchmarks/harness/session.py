"""One run: the processes, the files that they share, and the measurement of each case as a row."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, Suite
from benchmarks.contestants import Contestant, Missing
from benchmarks.harness.alternate import Entrant, EntrantError, alternate
from benchmarks.harness.device import CPU, Device
from benchmarks.harness.machine import Limits, busy_seconds
from benchmarks.harness.processes import Process, Processes
from benchmarks.harness.startup import until_logits
from benchmarks.harness.worker import Prepared
from benchmarks.report.results import Outcome, Row

REFERENCE = "reference"
"""The name of the process that makes problems and measures the machine's limits."""

FOREIGN_LIMIT = 0.2
"""Processor time of other programs, per second, above which a measurement is in doubt."""
_LIMITS_ATTEMPTS = 5
_MEMORY_PROCESSES = 3
_START_ROUNDS = 5


class Session:
    """Measures cases until it is closed.

    Args:
        say: called with a line about each step.
        make: makes a process from a contestant's name and a file for its output.
    """

    def __init__(
        self,
        *,
        say: Callable[[str], None] = lambda _: None,
        make: Callable[[str, Path], Process] = Process,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="effkernels-benchmarks-"))
        self._processes = Processes(self.folder, make)
        self._say = say
        self._make = make
        self._limits: dict[Device, Limits] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and delete their files."""
        self._processes.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def machine(self) -> dict[str, Any]:
        """The result of :func:`benchmarks.harness.machine.describe` in a process like the contestants'."""
        described: dict[str, Any] = self._reference("benchmarks.harness.machine:describe")
        return described

    def limits(self, device: Device = CPU) -> Limits:
        """The limits of the machine or of its GPU, measured at the first call."""
        if device not in self._limits:
            self._say("measuring bandwidth and arithmetic")
            reference = self._processes.of(REFERENCE)
            for _ in range(_LIMITS_ATTEMPTS):
                watch = _Watch([reference])
                found: Limits = self._reference("benchmarks.harness.machine:measure_limits", device)
                self._limits[device] = found.best(self._limits.get(device, found))
                disturbed = watch.foreign()
                if disturbed <= FOREIGN_LIMIT:
                    break
                self._say(
                    f"other programs used {disturbed:.0%} of a core meanwhile: measuring again"
                )
        return self._limits[device]

    def measure(self, suite: Suite, case: Case) -> Row:
        """All contestants of the suite on one case: first checked, then timed in turns."""
        work = case.work
        row = Row(
            suite=suite.name,
            key=case.key,
            title=case.title,
            images=case.batch,
            bytes=work.bytes,
            macs=work.macs,
            case=case.described(),
        )
        if suite.metric == "memory":
            row.outcomes = [self._peak(contestant, case) for contestant in suite.contestants]
            return row
        if suite.metric == "startup":
            row.outcomes = self._starts(suite, case)
            return row
        for contestant in suite.contestants:
            self._processes.of(contestant.name).start()  # all at once, because nothing is timed yet
        if suite.metric == "time":
            bound = self.limits(case.device).bound(work)
            row.bound, row.bound_kind = bound.seconds, bound.kind
        self._say(f"{suite.name}: {case.title}: preparing")
        self._reference("benchmarks.harness.making:make", str(self.folder), case)
        ready: list[Entrant] = []
        for contestant in suite.contestants:
            process = self._processes.of(contestant.name)
            outcome = _outcome(contestant, process.prepare(contestant, case, self.folder))
            row.outcomes.append(outcome)
            if outcome.status == "ok":
                ready.append(process)
            else:
                self._say(f"  {contestant.name}: {outcome.status}: {outcome.reason}")
        self._say(f"{suite.name}: {case.title}: measuring {', '.join(e.name for e in ready)}")
        reference = self._processes.of(REFERENCE)
        watch = _Watch([*ready, reference])
        pace = reference.pace if case.device.kind == "cpu" else None
        measured = alternate(ready, suite.timing, pace=pace)
        row.foreign = watch.foreign()
        for name, samples in measured.items():
            timed = row.outcome(name)
            assert timed is not None
            timed.rounds, timed.iterations = samples.rounds, samples.iterations
            timed.awake = round(samples.awake, 4)
            if samples.failure is not None:
                timed.status, timed.reason = "failed", samples.failure
        for contestant in suite.contestants:
            self._processes.of(contestant.name).release()
        return row

    def _peak(self, contestant: Contestant, case: Case) -> Outcome:
        """Peak memory, in processes that have done nothing else: the median of several, and all of them."""
        self._say(f"memory: {case.title}: {contestant.name}")
        outcome = Outcome(contestant.name, contestant.family, "ok", iterations=1)
        peaks = []
        for number in range(_MEMORY_PROCESSES):
            log = self.folder / f"memory-{contestant.name}-{number}.log"
            process = self._make(contestant.name, log)
            try:
                arguments = contestant.name, case, str(self.folder)
                measured = process.ask("call", "benchmarks.harness.memory:measure", *arguments)
            except EntrantError as error:
                outcome.status, outcome.reason = "failed", str(error)
                return outcome
            finally:
                process.close()
            peaks.append(measured["peak_bytes"])
            outcome.rounds.append(measured["seconds"])
        outcome.peak_bytes = statistics.median_low(peaks)
        outcome.details = {"peaks": peaks}
        return outcome

    def _starts(self, suite: Suite, case: Case) -> list[Outcome]:
        """Seconds from a fresh interpreter's first import to the first logits, in rounds over all contestants."""
        outcomes = [Outcome(c.name, c.family, "ok", iterations=1) for c in suite.contestants]
        steps: dict[str, list[dict[str, float]]] = {o.contestant: [] for o in outcomes}
        for number in range(_START_ROUNDS + 1):
            self._say(f"startup: {case.title}: round {number}")
            for outcome in outcomes:
                if outcome.status != "ok":
                    continue
                arguments = outcome.contestant, case, str(self.folder)
                try:
                    seconds = self._reference("benchmarks.harness.startup:measure", *arguments)
                except EntrantError as error:
                    outcome.status, outcome.reason = _started_not(str(error))
                    continue
                if number:  # the first round fills the file system's caches
                    steps[outcome.contestant].append(seconds)
                    outcome.rounds.append(until_logits(seconds))
        for outcome in outcomes:
            done = steps[outcome.contestant]
            outcome.details = {
                f"seconds of {name}": round(statistics.median(s[name] for s in done), 4)
                for name in (done[0] if done else ())
            }
        return outcomes

    def _reference(self, function: str, *arguments: Any) -> Any:
        return self._processes.of(REFERENCE).ask("call", function, *arguments)


def _started_not(error: str) -> tuple[str, str]:
    """Status and reason of a contestant that did not start."""
    kind, _, reason = error.partition(": ")
    return ("missing", reason) if kind == Missing.__name__ else ("failed", error)


class _Watch:
    """Measures what other processes use in the meantime."""

    def __init__(self, entrants: Sequence[Entrant]) -> None:
        self._entrants = entrants
        self._start = time.perf_counter()
        self._unaccounted = self._now()

    def _now(self) -> float:
        return busy_seconds() - sum(entrant.cpu_seconds() for entrant in self._entrants)

    def foreign(self) -> float:
        """Processor seconds of all processes except the contestants, per second since the start."""
        elapsed = max(time.perf_counter() - self._start, 1e-9)
        return round(max(self._now() - self._unaccounted, 0.0) / elapsed, 3)


def _outcome(contestant: Contestant, prepared: Prepared) -> Outcome:
    return Outcome(
        contestant.name,
        contestant.family,
        prepared.status,
        prepared.reason,
        error=prepared.error,
        allowed=prepared.allowed,
        build_seconds=round(prepared.seconds, 3),
        details=prepared.details,
    )
