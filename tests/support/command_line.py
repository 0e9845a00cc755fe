"""The outcome of a command that ran in this process, and what it should say."""

from __future__ import annotations

from collections.abc import Callable

# The classes that Lite0 finds most likely for the cat of the sample pictures.
CATS = {"tabby", "tiger cat", "Egyptian cat"}


class Outcome:
    """What a command printed, and its exit code."""

    def __init__(self, exit_code: int, stdout: str, stderr: str) -> None:
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr

    @property
    def error(self) -> str:
        """The single line on stderr of a command that failed with status 2 and printed nothing
        else.
        """
        assert self.exit_code == 2, (self.exit_code, self.stdout, self.stderr)
        assert self.stdout == ""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("effkernels: ")
        return lines[0]


Run = Callable[..., Outcome]
