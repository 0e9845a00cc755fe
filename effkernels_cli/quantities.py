"""Reads amounts with units: 10ms, 1.2G, 64MiB. Anything else is an error that says what is accepted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import typer

_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+) ?([^\d\s]*)")
_TIMES = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_COUNTS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {
    "B": 1.0,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}


def _reader(what: str, units: Mapping[str, float], examples: str) -> Callable[[str], float]:
    def read(given: str) -> float:
        found = _NUMBER.fullmatch(given.strip())
        if found is None or found[2] not in units:
            names = ", ".join(name for name in units if name)
            raise typer.BadParameter(
                f"{given!r} is not {what}: write a number and one of {names}, such as {examples}"
            )
        value = float(found[1]) * units[found[2]]
        if not 0.0 < value < float("inf"):
            raise typer.BadParameter(f"{given!r} must be above 0 and finite")
        return value

    return read


read_time = _reader("a time", _TIMES, "10ms or 0.5s")
"""Seconds."""
read_count = _reader("a count", _COUNTS, "400M or 1.2G")
"""A number of MACs or of parameters; the unit may be left out."""
read_bytes = _reader("a size in memory", _BYTES, "64MB or 64MiB")
"""Bytes."""
