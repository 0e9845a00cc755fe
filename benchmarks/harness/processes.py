"""Starts, queries and ends the contestants' processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import IO, Any

from benchmarks import ROOT
from benchmarks.cases import Case
from benchmarks.contestants import Contestant
from benchmarks.harness.alternate import EntrantError
from benchmarks.harness.worker import Prepared

PATIENCE = 900.0
"""Seconds to wait for one answer; compiling a large network takes minutes."""

# Not -m: pickled objects would then belong to __main__. The repository comes last (see benchmarks/__init__.py).
_ENTRY = (
    "import sys; sys.path.append(sys.argv[2]); from multiprocessing.connection import Connection; "
    "from benchmarks.harness.worker import serve; serve(Connection(int(sys.argv[1])))"
)


class Process:
    """One worker. It starts at the first question, and again at the next one if it has died."""

    def __init__(self, name: str, log: Path, *, patience: float = PATIENCE) -> None:
        self.name = name
        self.log = log
        self.patience = patience
        self._child: subprocess.Popen[bytes] | None = None
        self._log_file: IO[bytes] | None = None
        self._pipe: Any = None

    def start(self) -> None:
        """Start it unless it runs; it is ready when it answers."""
        if self._child is not None:
            return
        self._pipe, theirs = Pipe()
        self._log_file = self.log.open("wb")
        self._child = subprocess.Popen(
            [sys.executable, "-c", _ENTRY, str(theirs.fileno()), str(ROOT)],
            cwd=self.log.parent,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=subprocess.STDOUT,
        )
        theirs.close()

    def ask(self, command: str, *arguments: Any) -> Any:
        """Send one command of :class:`benchmarks.harness.worker.Worker` and return its answer.

        Raises:
            EntrantError: the command raised, or the worker died or did not answer in time.
        """
        self.start()
        try:
            self._pipe.send((command, arguments))
            if not self._pipe.poll(self.patience):
                self.close()
                raise EntrantError(f"no answer within {self.patience:.0f} s")
            status, answer = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise EntrantError(self._last_words()) from error
        if status != "ok":
            raise EntrantError(answer)
        return answer

    def prepare(self, contestant: Contestant, case: Case, folder: Path) -> Prepared:
        """Like the worker's ``prepare``; a process that dies counts as a failure."""
        try:
            prepared: Prepared = self.ask("prepare", contestant, case, str(folder))
        except EntrantError as error:
            return Prepared("failed", str(error))
        return prepared

    def measure(self, warm: int, timed: int) -> list[float]:
        """Seconds of each of ``timed`` runs, after ``warm`` others."""
        seconds: list[float] = self.ask("measure", warm, timed)
        return seconds

    def pace(self) -> float:
        """Seconds that a fixed piece of work takes now."""
        seconds: float = self.ask("pace")
        return seconds

    def release(self) -> None:
        """Release what was prepared."""
        if self._child is not None:
            with contextlib.suppress(EntrantError):
                self.ask("release")

    def cpu_seconds(self) -> float:
        """Processor time of all its threads so far; 0 if the system does not say."""
        if self._child is None:
            return 0.0
        try:
            fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it."""
        if self._child is None:
            return
        self._pipe.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None
        if self._log_file is not None:
            self._log_file.close()

    def _last_words(self) -> str:
        assert self._child is not None
        code = self._child.wait()
        self._child = None
        lines = self.log.read_text(errors="replace").strip().splitlines()
        said = f": {lines[-1]}" if lines else ""
        return f"its process ended with {code}{said}"


class Processes:
    """One process per contestant, by name, reused for all cases, because starting one takes seconds."""

    def __init__(self, folder: Path, make: Callable[[str, Path], Process] = Process) -> None:
        self._folder = folder
        self._make = make
        self._running: dict[str, Process] = {}

    def of(self, name: str) -> Process:
        """The process of this name."""
        if name not in self._running:
            log = self._folder / f"{name.replace('/', '_')}.log"
            self._running[name] = self._make(name, log)
        return self._running[name]

    def close(self) -> None:
        """End them all."""
        for process in self._running.values():
            process.close()
        self._running.clear()
