"""``effkernels convert``: a checkpoint in another code base's format."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import torch
import typer

from effkernels.checkpoints import save_checkpoint, semantics_of
from effkernels.checkpoints.semantics import twin
from effkernels.cli.classify import load_model
from effkernels.cli.options import SourceOption
from effkernels.cli.output import console, printable


class Target(str, Enum):
    """Formats that can be written."""

    timm = "timm"
    torchvision = "torchvision"
    effkernels = "effkernels"


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
    if output.is_dir():
        raise ValueError(f"cannot write {output}: it is a folder")
    if output.exists() and not force:
        raise ValueError(f"{output} exists already: pass --force to replace it")
    network = load_model(model, input, source, torch.device("cpu"))
    save_checkpoint(network, output, format=to.value, allow_semantics_change=allow_semantics_change)
    semantics = semantics_of(network)
    same = twin(to.value, model, semantics)
    loads = f"; computes the same in {same}" if same and to is not Target.effkernels else ""
    console().print(
        printable(
            f"{output}: {model} in {to.value} format, {len(network.state_dict())} tensors, "
            f"{network.num_classes} classes, {semantics.describe()}{loads}"
        ),
        soft_wrap=True,
    )
