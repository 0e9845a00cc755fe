"""``effkernels convert``: a checkpoint in another code base's format."""

from __future__ import annotations

from pathlib import Path

import torch

from effkernels.checkpoints import save_checkpoint, semantics_of
from effkernels.checkpoints.semantics import twin
from effkernels.cli.classify import load_model
from effkernels.cli.output import console, printable


def convert(
    *,
    input: str,
    output: Path,
    to: str,
    model: str,
    source: str | None,
    use_ema: bool | None,
    allow_semantics_change: bool,
    force: bool,
) -> None:
    """Write the checkpoint and print what was written; see ``effkernels convert --help``."""
    if output.is_dir():
        raise ValueError(f"cannot write {output}: it is a folder")
    if output.exists() and not force:
        raise ValueError(f"{output} exists already: pass --force to replace it")
    network = load_model(model, input, source, torch.device("cpu"), use_ema=use_ema)
    save_checkpoint(network, output, format=to, allow_semantics_change=allow_semantics_change)
    semantics = semantics_of(network)
    same = twin(to, model, semantics)
    loads = f"; computes the same in {same}" if same and to != "effkernels" else ""
    console().print(
        printable(
            f"{output}: {model} in {to} format, {len(network.state_dict())} tensors, "
            f"{network.num_classes} classes, {semantics.describe()}{loads}"
        ),
        soft_wrap=True,
    )
