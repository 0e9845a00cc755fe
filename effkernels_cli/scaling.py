"""The subcommands on sizes of networks and what they cost, as typer sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effkernels_cli.calling import call
from effkernels_cli.options import BatchSizeOption, DeviceOption, DTypeOption, JsonOption
from effkernels_cli.quantities import read_bytes, read_count, read_time

_LatencyOption = Annotated[
    float | None,
    typer.Option("--latency", parser=read_time, metavar="10ms", help="Longest time of one call."),
]
_MemoryOption = Annotated[
    float | None,
    typer.Option(
        "--memory",
        parser=read_bytes,
        metavar="64MB",
        help="Most memory of one call, weights included (estimate).",
    ),
]
_MacsOption = Annotated[
    float | None,
    typer.Option(
        "--macs", parser=read_count, metavar="400M", help="Most multiply-accumulates of one image."
    ),
]
_ParametersOption = Annotated[
    float | None,
    typer.Option("--parameters", parser=read_count, metavar="10M", help="Most parameters."),
]


def choose(
    beside: Annotated[
        str | None,
        typer.Option(
            "--beside",
            metavar="resnet152",
            help="In place of limits: time one model (B1 by default) beside this network of torchvision's, in paired "
            "turns, on one thread by default: the paper's Table 4.",
        ),
    ] = None,
    latency: _LatencyOption = None,
    memory: _MemoryOption = None,
    macs: _MacsOption = None,
    parameters: _ParametersOption = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A name, or a pattern such as '*lite*'; repeat it for several. B0-B8 and Lite by default.",
        ),
    ] = None,
    every_source: Annotated[
        bool,
        typer.Option(
            "--every-source",
            help="Count the accuracies of all published weights, not only of those that 'imagenet' loads.",
        ),
    ] = False,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "--batch", "-b", help="Pictures of a call.")
    ] = 1,
    dtype: DTypeOption = "float32",
    device: DeviceOption = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", help="As torch.set_num_threads; torch's own by default, with --beside 1."
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="How long to measure, beside first tries.")
    ] = 60.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Picture to draw: .png, .svg or .pdf.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace OUTPUT.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The most accurate model within limits, measured here.

    Times each B and Lite model at its own size of images and at neighbouring ones, unless its costs
    already exceed a limit. Accuracies are the published ones, for the size that they were published for.
    With --beside: two networks and the ratio of their times, beside the paper's.
    """
    call("choose", locals())


_FREE = "; without it, --macs and --memory leave depth, width and resolution free"


def scale(
    base: Annotated[
        str,
        typer.Option(
            "--base", help="Network to scale: a model's name, or a configuration as a .json file."
        ),
    ] = "efficientnet_b0",
    phi: Annotated[
        float | None, typer.Option("--phi", help="How far to scale, at least 0" + _FREE + ".")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option("--alpha", help="Depth for each phi; the paper's 1.2.")
    ] = None,
    beta: Annotated[
        float | None, typer.Option("--beta", help="Width for each phi; the paper's 1.1.")
    ] = None,
    gamma: Annotated[
        float | None, typer.Option("--gamma", help="Resolution for each phi; the paper's 1.15.")
    ] = None,
    macs: _MacsOption = None,
    memory: _MemoryOption = None,
    batch_size: BatchSizeOption = 1,
    dtype: DTypeOption = "float32",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the scaled configuration as a .json file."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace OUTPUT.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Scale a network: by the compound formula, or to a budget.

    With --phi: depth by alpha^phi, width by beta^phi, resolution by gamma^phi. With --macs or --memory:
    the factors of the largest accuracy by a power law that was fitted to the paper's tables.
    """
    call("scale", locals())
