"""Progress bars on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


@contextmanager
def progress_bar(*more: ProgressColumn, disable: bool = False) -> Iterator[Progress]:
    """A bar with counts and the time left, and ``more`` columns; disabled if stderr is not a terminal."""
    watched = Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        *more,
        console=watched,
        transient=True,
        disable=disable or not watched.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    if bar.disable:
        yield bar  # not started: rich 13 prints an empty line when a bar stops, even a disabled one
    else:
        with bar:
            yield bar
