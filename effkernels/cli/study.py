"""``effkernels study``: the paper's experiments, with a bar while networks train."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer
from rich.progress import Progress, TaskID

from effkernels.cli.options import choose_device
from effkernels.cli.output import console, print_json, printable
from effkernels.cli.progress import progress_bar
from effkernels.cli.train import default_workers
from effkernels.models import EfficientNetConfig
from effkernels.models.config_file import read_config
from effkernels.models.registry import get_config
from effkernels.studies import (
    Foretold,
    Machine,
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
from effkernels.studies.setting import FULL
from effkernels.train.recipe import RECIPES, Recipe
from effkernels.train.sources import is_fashion_mnist

TRAININGS = "trainings.jsonl"
DEFAULT_BASE = "efficientnet_b0"
_UNFINISHED = 3


@dataclass(frozen=True)
class _Drawn:
    run: Callable[..., Document]
    page: Callable[[Document], str]
    draw: Callable[[Document, Any], None]


@dataclass(frozen=True)
class _Study(_Drawn):
    setting: Setting
    full: bool = True
    """Whether it works on pictures at full size."""


def study(
    *,
    which: str,
    output: Path,
    as_json: bool,
    minutes: float | None = None,
    dry_run: bool = False,
    device: str | None = None,
    workers: int | None = None,
    bad_pictures: int | None = None,
    **options: Any,
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
    setting = _setting(which, chosen, options)
    store = Store(output / TRAININGS)
    with progress_bar() as bar:
        seconds = None if minutes is None else 60 * minutes
        shown = _Shown(bar)
        given = {"device": device, "workers": workers, "bad_pictures": bad_pictures}
        machine = _machine(setting, given, shown)
        trainer = Trainer(
            store, seconds, shown, announce=_announce, machine=machine, only_forecast=dry_run
        )
        try:
            document = chosen.run(trainer, setting, output, **options)
        except Foretold:
            return
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


def _setting(which: str, chosen: _Study, options: dict[str, Any]) -> Setting:
    """The study's own, with what the user changed; or one of a base at full size."""
    small, base, side = (options.pop(name) for name in ("small", "base", "resolution"))
    named = options.pop("recipe")
    changes = {name: options.pop(name) for name in ("epochs", "lr")}
    names = ("data", "pictures", "held_out", "split_seed", "batch_size")
    given = {name: value for name in names if (value := options.pop(name)) is not None}
    given = {"batch" if name == "batch_size" else name: value for name, value in given.items()}
    data = given.get("data", chosen.setting.data)
    fitted = {"--base": base, "--resolution": side, "--recipe": named}
    wants_full = [name for name, value in fitted.items() if value is not None]
    if small and wants_full:
        raise ValueError(f"--small and {wants_full[0]} contradict each other: pass one of them")
    try:
        if small or not (wants_full or _is_folder(data)):
            return replace(
                chosen.setting, recipe=_recipe(chosen.setting.recipe, **changes), **given
            )
        if not chosen.full:
            raise ValueError(
                f"'study {which}' searches among small networks alone: pass --small, which reduces the pictures to 28 "
                "pixels; at full size there are grid, compare, widths, cam and final"
            )
        if named is not None and named not in RECIPES:
            raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {named!r}")
        recipe = _recipe(FULL if named is None else RECIPES[named], **changes)
        return Setting.full(**{"data": data, **given}, config=_base(base, side), recipe=recipe)
    except (ValueError, TypeError) as error:
        raise ValueError(_as_option(str(error))) from None


def _is_folder(data: str) -> bool:
    return not is_fashion_mnist(data) and Path(data).is_dir()


def _recipe(usual: Recipe, *, epochs: int | None, lr: float | None) -> Recipe:
    """A recipe of so many epochs, of which the warm-up is a fifth at most, and with this learning rate."""
    if lr is not None:
        usual = replace(usual, lr=lr, lr_batch=None)
    if epochs is None:
        return usual
    usual = replace(usual, epochs=epochs)
    return replace(usual, warmup_epochs=min(usual.warmup_epochs, epochs / 5))


def _base(given: str | None, side: int | None) -> EfficientNetConfig:
    name = DEFAULT_BASE if given is None else given
    config = read_config(name) if name.endswith(".json") else get_config(name)
    if side is None:
        return config
    if side < 1:
        raise ValueError(f"resolution must be at least 1, got {side}")
    return replace(config, coefficients=replace(config.coefficients, resolution=side))


def _machine(setting: Setting, given: Mapping[str, Any], shown: _Shown) -> Machine:
    """Where to train, by the user's options; those that were not passed are None."""
    for option, value in given.items():
        name = f"--{option.replace('_', '-')}"
        if setting.config is None and value not in (None, "cpu", 0):
            raise ValueError(
                f"{name} is for networks at full size: the small ones train in one thread of the processor"
            )
        if isinstance(value, int) and value < 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
    if setting.config is None:
        return Machine()
    where, _ = choose_device(given["device"])
    usual = {"workers": default_workers(), "bad_pictures": Machine.bad_pictures}
    chosen = {name: value if given[name] is None else given[name] for name, value in usual.items()}
    return Machine(where, **chosen, note=shown.note, progress=shown.progress)


def _as_option(message: str) -> str:
    """``held_out must be ...`` as ``--held-out must be ...``."""
    message = re.sub(r"^batch(?= must be )", "batch_size", message)
    return re.sub(r"^(\w+)(?= must be )", lambda found: f"--{found[1].replace('_', '-')}", message)


def _announce(text: str) -> None:
    """On standard error: it is no part of the result."""
    typer.echo(f"to do: {text}", err=True)


class _Shown:
    """Shows in a bar how many trainings are done, and notes above it, once each."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._done = bar, 0
        self._noted: set[str] = set()
        self._task: TaskID = bar.add_task("trainings", total=None)

    def __call__(self, done: int, wanted: int) -> None:
        self._done = done
        self._bar.update(self._task, completed=done, total=wanted)

    def progress(self, share: float) -> None:
        self._bar.update(self._task, completed=self._done + share)

    def note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            typer.echo(f"effkernels: skipped: {text}", err=True)


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
    found = candidates(
        grid(step, setting.base.largest_factor),
        constraint,  # type: ignore[arg-type]
        target=target,
        tolerance=tolerance,
        base=setting.base,
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
    return Latencies(output / "latencies.json", setting.base)


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
    "search": _Study(_search, replaying.page, replaying.draw, replaying.TABLE_SETTING, False),
    "mnas": _Study(_mnas, live.page, live.draw, replaying.TABLE_SETTING, False),
    "final": _Study(_final, judging.page, judging.draw, Setting()),
}
# Those that train nothing.
_DRAWN = {"figures": _Drawn(published.figures, published.page, published.draw)}
