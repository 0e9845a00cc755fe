"""What is measured: one file per library, with its contestants as rows of data, and the code that builds them.

A new contestant is a row in ``CONTESTANTS`` of one of these files, or of a new one; every file here is read.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """A way to compute a case. The contestants of one ``family`` belong together: its fastest member counts.

    ``build`` names, as ``module:function``, the function that turns a case and the folder of problems into a
    :class:`Built`, in a process that only this contestant uses. ``options`` are passed to it. ``cpu`` and ``cuda`` are
    the groups that it belongs to on each device; a suite names the groups that it measures. ``result`` is the result of
    the problem that it computes. ``full``: measured only with ``--full``. ``place``: its position in tables, lowest
    first. ``checked``: whether its result must be right.
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
        """Whether it is effkernels."""
        return self.family == "effkernels"

    def joins(self, groups: Iterable[str], kind: str) -> bool:
        """Whether it is in one of the groups on this kind of device."""
        return not set(groups).isdisjoint(self.cpu if kind == "cpu" else self.cuda)


@dataclass
class Built:
    """``run`` computes the case once and returns a tensor or an array. ``details`` say how, for the report.

    On a GPU ``run`` may return before its work is done.
    """

    run: Callable[[], Any]
    details: dict[str, Any]


class Missing(Exception):  # noqa: N818 - not an error: the contestant is not available here
    """The contestant cannot run on this machine; the message is the reason."""


Builder = Callable[..., Built]
"""Called with (case: Case, folder: Path, **options)."""


def all_contestants() -> Iterator[Contestant]:
    """All contestants of all files here."""
    for found in pkgutil.iter_modules(__path__):
        yield from importlib.import_module(f"{__name__}.{found.name}").CONTESTANTS


def contestants_in(*groups: str, kind: str, full: bool = True) -> tuple[Contestant, ...]:
    """The contestants in one of the groups on this kind of device, in table order; ``full``: also rare ones."""
    found = [c for c in all_contestants() if c.joins(groups, kind) and (full or not c.full)]
    return tuple(sorted(found, key=lambda contestant: contestant.place))
