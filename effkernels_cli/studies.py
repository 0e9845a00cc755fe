"""The subcommands of ``effkernels study``, as typer sees them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from effkernels_cli.calling import call
from effkernels_cli.options import DeviceOption, JsonOption

OutputOption = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="Folder for results and finished trainings; several processes may share it.",
    ),
]
CostOption = Annotated[
    str,
    typer.Option(
        "--cost", help="In the objective: 'macs', or 'latency' (measured here, beside the MACs)."
    ),
]


def _shared(
    output: OutputOption,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="'fashion-mnist' (the default), 'fashion-mnist:FOLDER', or a folder of classes, also one with such "
            "folders in train and test, whose pictures are taken at full size.",
        ),
    ] = None,
    small: Annotated[
        bool,
        typer.Option(
            "--small", help="Reduce the pictures of a folder to 28 pixels, for the small networks."
        ),
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="What is scaled at full size: a model's name or a configuration (.json); efficientnet_b0.",
        ),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option("--resolution", help="Of the base, in pixels; its own by default.")
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(
            "--pictures", help="To train on; by default the study's, at full size all others."
        ),
    ] = None,
    held_out: Annotated[
        int | None,
        typer.Option(
            "--held-out",
            help="Training pictures that select; 5000 by default, at full size at most a fifth.",
        ),
    ] = None,
    split_seed: Annotated[
        int | None,
        typer.Option(
            "--split-seed", help="Of which pictures are held out, and which trained on; 0."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", help="At full size: paper, sgd, adamw or transfer; by default a short one."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="By default the recipe's.")] = None,
    lr: Annotated[
        float | None,
        typer.Option("--lr", help="Learning rate after the warm-up, for the batch as it is."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            "-b",
            help="Pictures in a step; by default the study's, at full size 32.",
        ),
    ] = None,
    device: DeviceOption = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Processes that read pictures at full size; 0 for none."),
    ] = None,
    bad_pictures: Annotated[
        int | None,
        typer.Option(
            "--bad-pictures",
            help="Unreadable pictures at full size to skip in a training before giving up; 100.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            help="Begin no training after this time, and exit with 3 if some are left; the same command goes on.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is left to do and its cost, and stop.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What all studies take that train networks."""


def _trains(command: Callable[..., None]) -> Callable[..., None]:
    """A subcommand with its own options, then those that all of them share."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        call("study", {"which": command.__name__, **options})

    output, *others = inspect.signature(_shared).parameters.values()
    own = inspect.signature(command).parameters.values()
    made = inspect.Signature([output, *own, *others])
    hints = {
        **get_type_hints(command, include_extras=True),
        **get_type_hints(_shared, include_extras=True),
    }
    run.__signature__ = made.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(annotation=hints[name]) for name, p in made.parameters.items()]
    )
    run.__annotations__ = hints
    return run


@_trains
def grid(
    constraint: Annotated[
        str,
        typer.Option(
            help="What must be about 2: 'nominal' (alpha * beta^2 * gamma^2), or the realised ratio to the base of "
            "'macs', 'memory' or 'latency' (measured here)."
        ),
    ] = "nominal",
    target: Annotated[float, typer.Option(help="That ratio.")] = 2.0,
    tolerance: Annotated[float, typer.Option(help="How far it may be from that.")] = 0.1,
    step: Annotated[float, typer.Option(help="Of the grid, which begins at 1.")] = 0.1,
    seeds: Annotated[int, typer.Option(help="Trainings of a network that is not stopped.")] = 5,
    pruner: Annotated[str, typer.Option(help="Optuna's: 'halving', 'median' or 'none'.")] = (
        "halving"
    ),
) -> None:
    """Step 1: the grid search for alpha, beta and gamma.

    Writes grid.json, grid.md and grid.png (of another constraint: grid_macs.json ...).
    """


@_trains
def compare(
    triple: Annotated[
        str | None,
        typer.Option(
            help="alpha,beta,gamma of compound scaling; by default what 'grid' found in the same folder, else the "
            "paper's."
        ),
    ] = None,
    targets: Annotated[str, typer.Option(help="MACs over the base's.")] = "1.5,2,3,4",
    seeds: Annotated[int, typer.Option(help="Trainings of each network.")] = 3,
) -> None:
    """Accuracy against MACs of depth, width, resolution, and compound scaling.

    Writes comparison.json, comparison.md and comparison.png.
    """


@_trains
def widths(
    targets: Annotated[
        str, typer.Option(help="MACs over the base's to which each line is widened.")
    ] = "5,8",
    seeds: Annotated[int, typer.Option(help="Trainings of each network.")] = 2,
) -> None:
    """Accuracy against MACs in width, at four pairs of depth and resolution.

    Writes widths.json, widths.md and widths.png.
    """


@_trains
def cam(
    seeds: Annotated[int, typer.Option(help="Trainings of each network.")] = 2,
) -> None:
    """Where the base looks, and the base scaled in depth, width, resolution, or all three (Figure 7).

    Trained weights are kept in the folder weights. Writes cam.json, cam.md and cam.png. For the maps of five
    checkpoints of your own use 'effkernels cam' with --model and --weights for each.
    """


@_trains
def search(
    budget: Annotated[int, typer.Option(help="Networks that one search may train.")] = 80,
    times: Annotated[int, typer.Option(help="Replays of each search.")] = 200,
    cost: CostOption = "macs",
) -> None:
    """The search that made B0 against random search, on 216 networks that are trained once.

    Writes search.json, search.md and search.png; with --cost latency search_latency.json ...
    """


@_trains
def mnas(
    budget: Annotated[int, typer.Option(help="Networks that each strategy trains.")] = 40,
    judges: Annotated[
        int, typer.Option(help="Seeds, which no search saw, that judge what was chosen.")
    ] = 2,
    cost: CostOption = "macs",
) -> None:
    """The search that made B0 on MNAS's whole space, by evolution and at random.

    Writes mnas.json, mnas.md and mnas.png; with --cost latency mnas_latency.json ...
    """


@_trains
def final(
    seeds: Annotated[int, typer.Option(help="Trainings of each network.")] = 3,
) -> None:
    """What 'grid' and 'compare' selected, on the test pictures: once.

    Writes final.json, final.md and final.png.
    """


def figures(output: OutputOption, as_json: JsonOption = False) -> None:
    """The paper's Figures 1 and 5 from its Table 2: accuracy against parameters and FLOPs. Trains nothing.

    Writes figures.json, figures.md and figures.png.
    """
    call("study", {"which": "figures", **locals()})


study = typer.Typer(
    help="The paper's experiments, on networks that train in seconds or on your pictures at full size.",
    no_args_is_help=True,
)
for command in (grid, compare, widths, cam, search, mnas, final, figures):
    study.command()(command)
