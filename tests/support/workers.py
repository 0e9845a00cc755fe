"""A process that computes on request, over pipes: both of its ends."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class WorkerError(Exception):
    """The worker's error or, if something ended it, everything that it printed."""


class WorkerProcess:
    """Runs ``script``, which calls :func:`serve`; starts it at the first call, and again if it has ended."""

    error: type[WorkerError] = WorkerError

    def __init__(self, script: Path, folder: Path, environment: Mapping[str, str]) -> None:
        self._script, self._folder, self._environment = script, folder, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._log.truncate(0)
            self._process = subprocess.Popen(
                [sys.executable, str(self._script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                cwd=self._folder,
                env=os.environ | dict(self._environment),
            )
        return self._process

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the worker and return its result.

        Raises:
            WorkerError: it raised an error, or the process ended.
        """
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        data = pickle.dumps((method, arguments))
        header = b""
        try:
            process.stdin.write(struct.pack("q", len(data)) + data)
            process.stdin.flush()
            header = process.stdout.read(8)
        except BrokenPipeError:
            pass
        if not header:
            process.wait()
            self._process = None
            self._log.seek(0)
            raise self.error(self._log.read().decode(errors="replace"))
        status, answer = pickle.loads(process.stdout.read(*struct.unpack("q", header)))
        if status == "error":
            raise self.error(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()
            self._process = None
        self._log.close()


def serve(worker: object) -> None:
    """Answer requests for methods of ``worker`` until the pipe closes: ("done", result) or ("error", message)."""
    # Other output must not mix with the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while header := sys.stdin.buffer.read(8):
        method, arguments = pickle.loads(sys.stdin.buffer.read(*struct.unpack("q", header)))
        try:
            answer = ("done", getattr(worker, method)(*arguments))
        except Exception as error:
            answer = ("error", f"{type(error).__name__}: {error}")
        data = pickle.dumps(answer)
        answers.write(struct.pack("q", len(data)) + data)
        answers.flush()
