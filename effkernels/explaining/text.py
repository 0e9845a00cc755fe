"""Reports as text: tables in columns, and values as they stand in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch


def count_text(number: int, noun: str) -> str:
    """ "1 row", "2 rows"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shape_text(shape: Sequence[int]) -> str:
    """ "1x3x224x224"."""
    return "x".join(map(str, shape))


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32" of torch.float32."""
    return str(dtype).removeprefix("torch.")


def aligned(table: Sequence[Sequence[str]], text_columns: int) -> Iterator[str]:
    """The lines of a table: its first columns are text, and numbers follow, aligned right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = [
            cell.ljust(width) if place < text_columns else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
