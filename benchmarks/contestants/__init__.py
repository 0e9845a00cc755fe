"""Who is measured: a file for each rival, which holds its rows of data and how it is built.

A new contestant is a row in ``CONTESTANTS`` of one of these files, or of a new one: all of them are read.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """A way to compute a case. Contestants of one ``family`` are one rival: its fastest member counts.

    ``build`` names, as ``module:function``, what turns a case and the folder of problems into a
    :class:`Built`, in a process that belongs to this contestant alone. ``options`` are passed to it.
    ``cpu`` and ``cuda``: which groups it joins on which device; a suite says which groups measure it.
    ``result``: which of the problem's results it computes. ``full``: only measured with ``--full``.
    ``place``: where it stands in tables, the lowest first. ``checked``: whether its numbers must be right.
    """

    name: str
    family: str
    build: str
    options: tuple[tuple[str, Any], ...] = ()
    cpu: tuple[str, ...] = ()
    cuda: tuple[str, ...] = ()
    result: str = "result"
    full: bool = False
    place: int = 0
    checked: bool = True

    @property
    def ours(self) -> bool:
        """Whether it is this library."""
        return self.family == "effkernels"

    def joins(self, groups: Iterable[str], kind: str) -> bool:
        """Whether it is in one of the groups on this kind of device."""
        return not set(groups).isdisjoint(self.cpu if kind == "cpu" else self.cuda)


@dataclass
class Built:
    """``run`` computes the case once; its result is a tensor or an array. ``details`` say how, for the report.

    On a GPU ``run`` may return before its work is done.
    """

    run: Callable[[], Any]
    details: dict[str, Any]


class Missing(Exception):  # noqa: N818 - no error: said of a contestant that is not here
    """The contestant cannot run on this machine; the message says why."""


Builder = Callable[..., Built]
"""Called with (case: Case, folder: Path, **options)."""


def everyone() -> Iterator[Contestant]:
    """Every row of every file here."""
    for found in pkgutil.iter_modules(__path__):
        yield from importlib.import_module(f"{__name__}.{found.name}").CONTESTANTS


def joining(*groups: str, kind: str, full: bool = True) -> tuple[Contestant, ...]:
    """Who is in one of the groups on this kind of device, in the order of tables; ``full``: the rarely measured too."""
    found = [c for c in everyone() if c.joins(groups, kind) and (full or not c.full)]
    return tuple(sorted(found, key=lambda contestant: contestant.place))
