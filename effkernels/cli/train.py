"""``effkernels train``: train a model, with a progress bar and a line for each epoch."""

from __future__ import annotations

import os
import re
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID, TextColumn

from effkernels.cli.options import choose_device
from effkernels.cli.output import console, print_json, printable
from effkernels.cli.progress import progress_bar
from effkernels.train import Job, Recipe, Result, Watch, recipe_for, run
from effkernels.train.processes import from_environment

_MOST_WORKERS = 4
_FIELDS = tuple(field.name for field in fields(Recipe))


def train(
    *,
    data: str,
    output: Path,
    model: str,
    recipe: str,
    as_json: bool,
    device: str | None,
    workers: int | None,
    **options: Any,
) -> None:
    """Train and print how it goes; see ``effkernels train --help``.

    ``options`` are fields of the job, and of the recipe where they are not None.
    """
    changes = {name: options.pop(name) for name in _FIELDS if name in options}
    changes = {name: value for name, value in changes.items() if value is not None}
    if "lr" in changes:
        changes["lr_batch"] = None
    where, _ = choose_device(device)
    try:
        job = Job(
            model,
            data,
            output,
            recipe_for(model, recipe, **changes),
            device=where,
            workers=default_workers() if workers is None else workers,
            **options,
        )
    except (ValueError, TypeError) as error:
        raise ValueError(_as_option(str(error))) from None
    first = from_environment().first
    with progress_bar(TextColumn("{task.fields[state]}"), disable=not first) as bar:
        result = run(job, _Shown(bar, job, quiet=as_json) if first else None)
    if first:
        _print(result, job, as_json=as_json)


def default_workers() -> int:
    """One for each core, up to four; none where there is only one."""
    cores = os.cpu_count() or 1
    return min(_MOST_WORKERS, cores) if cores > 1 else 0


def _as_option(message: str) -> str:
    """``lr must be ...`` as ``--lr must be ...``."""
    return re.sub(r"^(\w+)(?= must be )", lambda found: f"--{found[1].replace('_', '-')}", message)


def _print(result: Result, job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "model": job.model,
                "output": str(result.output),
                "weights": str(result.weights),
                "classes": result.classes,
                "recipe": job.recipe.to_json(),
                "history": result.history,
                "unreadable": result.problems,
            }
        )
        return
    out = console()
    out.print(printable(f"weights: {result.weights}"), soft_wrap=True)
    if result.problems:
        out.print(printable(f"{len(result.problems)} pictures could not be read"), soft_wrap=True)


class _Shown(Watch):
    """Shows steps in a bar, and prints a line for each epoch."""

    def __init__(self, bar: Progress, job: Job, *, quiet: bool) -> None:
        self.bar, self.job, self.quiet = bar, job, quiet
        self.task: TaskID | None = None
        self.pictures, self.since = 0, time.perf_counter()

    def note(self, text: str) -> None:
        self._print(f"effkernels: {text}", "yellow")

    def problem(self, text: str) -> None:
        self._print(f"effkernels: skipped: {text}", "yellow")

    def _print(self, text: str, style: str) -> None:
        self.bar.console.print(printable(text, style), soft_wrap=True)

    def begin(self, epoch: int, done: int, steps: int) -> None:
        if self.task is None:
            total = steps * self.job.recipe.epochs
            self.task = self.bar.add_task("", total=total, state="")
        self.bar.update(
            self.task,
            completed=epoch * steps + done,
            description=f"epoch {epoch + 1}/{self.job.recipe.epochs}",
        )
        self.pictures, self.since = 0, time.perf_counter()

    def step(self, pictures: int, loss: float | None) -> None:
        assert self.task is not None
        self.pictures += pictures
        rate = self.pictures / (time.perf_counter() - self.since)
        state = f"{rate:.0f} images/s"
        if loss is not None:
            state += f", loss {loss:.3f}"
        self.bar.update(self.task, advance=1, state=state)

    def epoch(self, row: dict[str, Any]) -> None:
        if self.quiet:
            return
        line = (
            f"epoch {row['epoch']}/{self.job.recipe.epochs}: loss {row['train_loss']:.4f}, validation "
            f"{row['loss']:.4f}, top-1 {100 * row['top1']:.2f} %, top-5 {100 * row['top5']:.2f} %, "
            f"{row['images_per_second']:.0f} images/s"
        )
        # On standard output; above the bar where both are the same terminal.
        out = self.bar.console if not self.bar.disable and console().is_terminal else console()
        out.print(printable(line), soft_wrap=True)
