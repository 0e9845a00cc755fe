"""What a training tells while it goes on, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effkernels.train import state as states


@dataclass(frozen=True)
class Result:
    """What a training left: a row for each epoch, its folder, its classes, and pictures that could not be read."""

    history: list[dict[str, Any]]
    output: Path
    classes: tuple[str, ...]
    problems: list[str]

    @property
    def weights(self) -> Path:
        """The file with the averaged weights."""
        return self.output / states.WEIGHTS


class Watch:
    """Is told how a training goes on; this one does not say anything."""

    def note(self, text: str) -> None:
        """Something to know before it begins."""

    def begin(self, epoch: int, done: int, steps: int) -> None:
        """An epoch begins (or goes on after ``done`` of ``steps`` steps)."""

    def step(self, pictures: int, loss: float | None) -> None:
        """A step is done, of so many pictures of all processes; its loss, where that is known."""

    def problem(self, text: str) -> None:
        """A picture cannot be read."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch is done and saved."""
