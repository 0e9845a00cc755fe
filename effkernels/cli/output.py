"""Printing shared by all subcommands: consoles, numbers, bars, tables, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from effkernels.cli.classify import Ranked
from effkernels_cli.errors import escaped

_PERCENT_WIDTH, _GAP = 7, 2
_BAR_WIDTH, _SHORTEST_BAR = 24, 6
_ANY_WIDTH = 1000


def console() -> Console:
    """Standard output at the time of the call, without highlighting of numbers and paths."""
    return Console(highlight=False)


def printable(text: object, style: str = "") -> Text:
    """Text without markup, with control characters escaped and '?' for what standard output cannot encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    shown = "\n".join(map(escaped, str(text).split("\n")))
    return Text(shown.encode(encoding, "replace").decode(encoding), style=style)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to standard output. NaN and infinity are refused, because JSON has neither."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def check_output(output: Path, suffixes: Sequence[str], *, force: bool) -> None:
    """Check that a file may be written, before anything is computed for it.

    Args:
        suffixes: one of which its name must end in, with their dots.
        force: whether a file that is there may be replaced.

    Raises:
        ValueError: another suffix, a folder, no folder to put it into, or a file that is there.
    """
    if output.suffix.lower() not in suffixes:
        raise ValueError(
            f"cannot write {output}: its name must end in one of {', '.join(suffixes)}"
        )
    if output.is_dir() or not output.parent.is_dir():
        what = "it is a folder" if output.is_dir() else f"no such folder {output.parent}"
        raise ValueError(f"cannot write {output}: {what}")
    if output.exists() and not force:
        raise ValueError(f"{output} exists already: pass --force to replace it")


def ranking(ranked: Sequence[Ranked], out: Console) -> RenderableType:
    """Classes with their probability in percent and a bar, most likely first.

    In a narrow terminal the bar shrinks to leave room for the labels, and disappears below _SHORTEST_BAR.
    """
    labels = [printable(entry.label) for entry in ranked]
    longest = max((label.cell_len for label in labels), default=0)
    width = min(_BAR_WIDTH, out.width - _PERCENT_WIDTH - 2 * _GAP - longest)
    grid = Table.grid(padding=(0, _GAP))
    grid.add_column(justify="right", width=_PERCENT_WIDTH)
    if width >= _SHORTEST_BAR:
        grid.add_column(width=width)
    grid.add_column(overflow="fold")
    full, empty = ("#", ".") if out.options.ascii_only else ("━", " ")
    for entry, label in zip(ranked, labels, strict=True):
        cells = [Text(f"{100 * entry.probability:.1f} %")]
        if width >= _SHORTEST_BAR:
            filled = round(entry.probability * width)
            cells.append(Text(full * filled, style="cyan").append(empty * (width - filled), "dim"))
        grid.add_row(*cells, label)
    return Padding(grid, (0, 0, 1, 0), expand=False)


def number_table(text_columns: Sequence[str], number_columns: Sequence[str]) -> Table:
    """A table without lines: text columns to the left, then numbers, aligned right."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for column in text_columns:
        table.add_column(column, no_wrap=True)
    for column in number_columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def print_wide(table: Table) -> None:
    """Print a table at its full width: in a narrow terminal lines wrap, and no number is cut off."""
    out = console()
    needed = out.measure(table, options=out.options.update(width=_ANY_WIDTH)).maximum
    out.width = max(out.width, needed)
    out.print(table)


def facts(rows: Mapping[str, object]) -> Table:
    """Names and values in two columns; long values wrap within their column."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(name, printable(value))
    return grid


def millions(count: float) -> str:
    """5288548 as 5.29M; 19341616 as 19.3M; 480309308 as 480M."""
    return f"{count / 1e6:#.3g}".rstrip(".") + "M"


def billions(count: float) -> str:
    """385872384 as 0.386B; 37000000000 as 37.0B."""
    return f"{count / 1e9:#.3g}".rstrip(".") + "B"


def short(number: float) -> str:
    """3.1416 as 3.1; from 100 up without decimals."""
    return f"{number:.1f}" if number < 99.95 else f"{number:.0f}"


def megabytes(count: float) -> str:
    """Bytes in units of 10^6: 21.4 MB."""
    return f"{count / 1e6:,.1f} MB"
