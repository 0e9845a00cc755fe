"""The subcommands of ``effkernels study``, as typer sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effkernels_cli.calling import call
from effkernels_cli.options import JsonOption

OutputOption = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="Folder for results and finished trainings; several processes may share it.",
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        help="Begin no training after this time, and exit with 3 if some are left; the same command goes on.",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="'fashion-mnist' (the default), 'fashion-mnist:FOLDER', or a folder of classes, whose "
        "pictures are reduced to 28 pixels.",
    ),
]
PicturesOption = Annotated[
    int | None, typer.Option("--pictures", help="To train on; by default the study's.")
]
HeldOutOption = Annotated[
    int | None, typer.Option("--held-out", help="Training pictures that select; 5000 by default.")
]
SplitOption = Annotated[
    int | None,
    typer.Option("--split-seed", help="Of which pictures are held out, and which trained on; 0."),
]
CostOption = Annotated[
    str,
    typer.Option(
        "--cost", help="In the objective: 'macs', or 'latency' (measured here, beside the MACs)."
    ),
]
EpochsOption = Annotated[int | None, typer.Option("--epochs", help="By default the study's.")]


def grid(
    output: OutputOption,
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
    data: DataOption = None,
    pictures: PicturesOption = None,
    held_out: HeldOutOption = None,
    split_seed: SplitOption = None,
    epochs: EpochsOption = None,
    minutes: MinutesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Step 1: the grid search for alpha, beta and gamma.

    Writes grid.json, grid.md and grid.png (of another constraint: grid_macs.json ...).
    """
    call("study", {"which": "grid", **locals()})


def compare(
    output: OutputOption,
    triple: Annotated[
        str | None,
        typer.Option(
            help="alpha,beta,gamma of compound scaling; by default what 'grid' found in the same folder, else the "
            "paper's."
        ),
    ] = None,
    targets: Annotated[str, typer.Option(help="MACs over the base's.")] = "1.5,2,3,4",
    seeds: Annotated[int, typer.Option(help="Trainings of each network.")] = 3,
    data: DataOption = None,
    pictures: PicturesOption = None,
    held_out: HeldOutOption = None,
    split_seed: SplitOption = None,
    epochs: EpochsOption = None,
    minutes: MinutesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accuracy against MACs of depth, width, resolution, and compound scaling.

    Writes comparison.json, comparison.md and comparison.png.
    """
    call("study", {"which": "compare", **locals()})


def widths(
    output: OutputOption,
    targets: Annotated[
        str, typer.Option(help="MACs over the base's to which each line is widened.")
    ] = "5,8",
    seeds: Annotated[int, typer.Option(help="Trainings of each network.")] = 2,
    data: DataOption = None,
    pictures: PicturesOption = None,
    held_out: HeldOutOption = None,
    split_seed: SplitOption = None,
    epochs: EpochsOption = None,
    minutes: MinutesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accuracy against MACs in width, at four pairs of depth and resolution.

    Writes widths.json, widths.md and widths.png.
    """
    call("study", {"which": "widths", **locals()})


def cam(
    output: OutputOption,
    seeds: Annotated[int, typer.Option(help="Trainings of each network.")] = 2,
    data: DataOption = None,
    pictures: PicturesOption = None,
    held_out: HeldOutOption = None,
    split_seed: SplitOption = None,
    epochs: EpochsOption = None,
    minutes: MinutesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where the base looks, and the base scaled in depth, width, resolution, or all three (Figure 7).

    Trained weights are kept in the folder weights. Writes cam.json, cam.md and cam.png. For the maps of five
    checkpoints of your own use 'effkernels cam' with --model and --weights for each.
    """
    call("study", {"which": "cam", **locals()})


def search(
    output: OutputOption,
    budget: Annotated[int, typer.Option(help="Networks that one search may train.")] = 80,
    times: Annotated[int, typer.Option(help="Replays of each search.")] = 200,
    cost: CostOption = "macs",
    data: DataOption = None,
    pictures: PicturesOption = None,
    held_out: HeldOutOption = None,
    split_seed: SplitOption = None,
    epochs: EpochsOption = None,
    minutes: MinutesOption = None,
    as_json: JsonOption = False,
) -> None:
    """The search that made B0 against random search, on 216 networks that are trained once.

    Writes search.json, search.md and search.png; with --cost latency search_latency.json ...
    """
    call("study", {"which": "search", **locals()})


def mnas(
    output: OutputOption,
    budget: Annotated[int, typer.Option(help="Networks that each strategy trains.")] = 40,
    judges: Annotated[
        int, typer.Option(help="Seeds, which no search saw, that judge what was chosen.")
    ] = 2,
    cost: CostOption = "macs",
    data: DataOption = None,
    pictures: PicturesOption = None,
    held_out: HeldOutOption = None,
    split_seed: SplitOption = None,
    epochs: EpochsOption = None,
    minutes: MinutesOption = None,
    as_json: JsonOption = False,
) -> None:
    """The search that made B0 on MNAS's whole space, by evolution and at random.

    Writes mnas.json, mnas.md and mnas.png; with --cost latency mnas_latency.json ...
    """
    call("study", {"which": "mnas", **locals()})


def final(
    output: OutputOption,
    seeds: Annotated[int, typer.Option(help="Trainings of each network.")] = 3,
    data: DataOption = None,
    pictures: PicturesOption = None,
    held_out: HeldOutOption = None,
    split_seed: SplitOption = None,
    epochs: EpochsOption = None,
    minutes: MinutesOption = None,
    as_json: JsonOption = False,
) -> None:
    """What 'grid' and 'compare' selected, on the test pictures: once.

    Writes final.json, final.md and final.png.
    """
    call("study", {"which": "final", **locals()})


def figures(output: OutputOption, as_json: JsonOption = False) -> None:
    """The paper's Figures 1 and 5 from its Table 2: accuracy against parameters and FLOPs. Trains nothing.

    Writes figures.json, figures.md and figures.png.
    """
    call("study", {"which": "figures", **locals()})


study = typer.Typer(
    help="The paper's experiments on networks that train in seconds.", no_args_is_help=True
)
for command in (grid, compare, widths, cam, search, mnas, final, figures):
    study.command()(command)
