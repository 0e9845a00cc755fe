"""``effkernels study``: the paper's experiments on small networks, with a bar while they train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer
from rich.progress import Progress, TaskID

from effkernels.cli.output import console, print_json, printable
from effkernels.cli.progress import progress_bar
from effkernels.studies import (
    OutOfTime,
    Setting,
    Store,
    Trainer,
    Triple,
    candidates,
    comparison,
    grid,
    grid_study,
    judging,
    live,
    maps,
    published,
    replaying,
    report,
    widths,
)
from effkernels.studies.grids import PAPER
from effkernels.studies.latencies import Latencies
from effkernels.studies.report import Document

TRAININGS = "trainings.jsonl"
_UNFINISHED = 3


@dataclass(frozen=True)
class _Drawn:
    run: Callable[..., Document]
    page: Callable[[Document], str]
    draw: Callable[[Document, Any], None]


@dataclass(frozen=True)
class _Study(_Drawn):
    setting: Setting


def study(
    *, which: str, output: Path, as_json: bool, minutes: float | None = None, **options: Any
) -> None:
    """Run a study, write its three files into ``output``, and print its page; see ``effkernels study --help``.

    ``options`` are those of the subcommand. Exits with 3 where time is over before it is finished.
    """
    if minutes is not None and not minutes >= 0:
        raise ValueError(f"--minutes must be at least 0, got {minutes:g}")
    if which in _DRAWN:
        drawn = _DRAWN[which]
        _finish(drawn.run(), drawn, output, as_json)
        return
    chosen = _STUDIES[which]
    setting = _setting(chosen.setting, options)
    store = Store(output / TRAININGS)
    with progress_bar() as bar:
        seconds = None if minutes is None else 60 * minutes
        trainer = Trainer(store, seconds, _Shown(bar), announce=_announce)
        try:
            document = chosen.run(trainer, setting, output, **options)
        except OutOfTime as stopped:
            console().print(printable(f"{stopped}"), soft_wrap=True)
            raise typer.Exit(_UNFINISHED) from None
    _finish(document, chosen, output, as_json)


def _finish(document: Document, chosen: _Drawn, output: Path, as_json: bool) -> None:
    """Write the three files and print the page, or the document."""
    document = report.rounded(document)  # first: the page is then that of the stored document
    page = chosen.page(document)
    paths = report.write(document, page, lambda figure: chosen.draw(document, figure), output)
    if as_json:
        print_json(document)
        return
    out = console()
    out.print(printable(page), soft_wrap=True)
    out.print(printable(f"\nwritten: {', '.join(map(str, paths))}"), soft_wrap=True)


def _setting(usual: Setting, options: dict[str, Any]) -> Setting:
    """The study's own, with what the user changed."""
    epochs = options.pop("epochs")
    names = ("data", "pictures", "held_out", "split_seed")
    changes = {name: options.pop(name) for name in names}
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        recipe = usual.recipe if epochs is None else replace(usual.recipe, epochs=epochs)
        return replace(usual, recipe=recipe, **given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"--{_dashes(str(error))}") from None


def _dashes(message: str) -> str:
    """A message that begins with the name of an argument, with that of the option in its place."""
    name, rest = message.split(" ", 1)
    return f"{name.replace('_', '-')} {rest}"


def _announce(text: str) -> None:
    """On standard error: it is no part of the result."""
    typer.echo(f"to do: {text}", err=True)


class _Shown:
    """Shows in a bar how many trainings are done."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID = bar.add_task("trainings", total=None)

    def __call__(self, done: int, wanted: int) -> None:
        self._bar.update(self._task, completed=done, total=wanted)


def _triple(text: str | None, output: Path) -> Triple:
    """``1.2,1.1,1.15``; by default what the grid search of the same folder found, else the paper's."""
    if text is None:
        path = output / "grid.json"
        return Triple(*judging.read(path)["best"]) if path.exists() else PAPER
    try:
        alpha, beta, gamma = (float(number) for number in text.split(","))
        return Triple(alpha, beta, gamma)
    except ValueError as error:
        raise ValueError(
            f"--triple must be alpha,beta,gamma such as 1.2,1.1,1.15; got {text!r} ({error})"
        ) from None


def _targets(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise ValueError(
            f"--targets must be ratios of MACs such as 1.5,2,3,4; got {text!r}"
        ) from None


def _grid(
    trainer: Trainer,
    setting: Setting,
    output: Path,
    *,
    constraint: str,
    target: float,
    tolerance: float,
    step: float,
    seeds: int,
    pruner: str,
) -> Document:
    classes, channels = setting.shape
    found = candidates(
        grid(step),
        constraint,  # type: ignore[arg-type]
        target=target,
        tolerance=tolerance,
        num_classes=classes,
        in_channels=channels,
        measured=_latencies(setting, output),
    )
    return grid_study.grid_search(
        found,
        setting,
        trainer,
        output / f"{grid_study.name_of(constraint)}.db",
        constraint=constraint,
        target=target,
        tolerance=tolerance,
        seeds=seeds,
        pruner=pruner,
    )


def _compare(
    trainer: Trainer,
    setting: Setting,
    output: Path,
    *,
    triple: str | None,
    targets: str,
    seeds: int,
) -> Document:
    chosen = _triple(triple, output)
    return comparison.compare(
        setting, trainer, triple=chosen, targets=_targets(targets), seeds=seeds
    )


def _widths(
    trainer: Trainer, setting: Setting, output: Path, *, targets: str, seeds: int
) -> Document:
    return widths.width_sweep(setting, trainer, targets=_targets(targets), seeds=seeds)


def _cam(trainer: Trainer, setting: Setting, output: Path, *, seeds: int) -> Document:
    return maps.maps_study(setting, trainer, seeds=seeds)


def _latencies(setting: Setting, output: Path) -> Latencies:
    classes, channels = setting.shape
    return Latencies(output / "latencies.json", num_classes=classes, in_channels=channels)


def _measured(cost: str, setting: Setting, output: Path) -> Latencies | None:
    """What measures the cost; None where it is MACs."""
    if cost not in ("macs", "latency"):
        raise ValueError(f"--cost must be macs or latency, got {cost!r}")
    return _latencies(setting, output) if cost == "latency" else None


def _search(
    trainer: Trainer, setting: Setting, output: Path, *, budget: int, times: int, cost: str
) -> Document:
    measured = _measured(cost, setting, output)
    return replaying.search_study(
        trainer, setting=setting, budget=budget, times=times, measured=measured
    )


def _mnas(
    trainer: Trainer, setting: Setting, output: Path, *, budget: int, judges: int, cost: str
) -> Document:
    measured = _measured(cost, setting, output)
    return live.live_search(trainer, setting, budget=budget, judges=judges, measured=measured)


def _final(trainer: Trainer, setting: Setting, output: Path, *, seeds: int) -> Document:
    return judging.judge(output, setting, trainer, seeds=seeds)


_STUDIES = {
    "grid": _Study(_grid, grid_study.page, grid_study.draw, Setting()),
    "compare": _Study(_compare, comparison.page, comparison.draw, Setting()),
    "widths": _Study(_widths, widths.page, widths.draw, Setting()),
    "cam": _Study(_cam, maps.page, maps.draw, Setting()),
    "search": _Study(_search, replaying.page, replaying.draw, replaying.TABLE_SETTING),
    "mnas": _Study(_mnas, live.page, live.draw, replaying.TABLE_SETTING),
    "final": _Study(_final, judging.page, judging.draw, Setting()),
}
# Those that train nothing.
_DRAWN = {"figures": _Drawn(published.figures, published.page, published.draw)}
