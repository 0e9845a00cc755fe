"""The subcommands that train and evaluate, as typer sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effkernels_cli.calling import call
from effkernels_cli.options import (
    DEFAULT_MODEL,
    DEFAULT_WEIGHTS,
    DeviceOption,
    DTypeOption,
    JsonOption,
    ModelOption,
    SourceOption,
    UseEmaOption,
)

_OWN = "; by default the recipe's"
_WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="Processes that read pictures; 0 for none.")
]


def train(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="Folder with train/ and val/, each with a folder of pictures for each class; or a folder of "
            "classes; 'fashion-mnist'; 'datasets:PLACE' (Hugging Face); or shards: 'train-{000..099}.tar'.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for weights, state and logs.")
    ],
    model: ModelOption = DEFAULT_MODEL,
    recipe: Annotated[
        str, typer.Option("--recipe", help="paper, sgd, adamw or transfer.")
    ] = "paper",
    validation: Annotated[
        str | None,
        typer.Option(
            "--validation", help="Another folder of classes, or shards, to validate with."
        ),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            "--holdout", help="Validate with this share (or number) of the training pictures."
        ),
    ] = None,
    subset: Annotated[
        float | None,
        typer.Option("--subset", help="Train on this share (or number) of them only."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            "-w",
            help="Start from these: 'imagenet', a checkpoint file, or 'hf-hub:owner/name'. Other classes get a new "
            "classifier.",
        ),
    ] = None,
    source: SourceOption = None,
    use_ema: UseEmaOption = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher", help="Distil from a model (its ImageNet weights) or a checkpoint file."
        ),
    ] = None,
    width: Annotated[float, typer.Option("--width", help="Factor of the model's width.")] = 1.0,
    depth: Annotated[float, typer.Option("--depth", help="Factor of the model's depth.")] = 1.0,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pictures" + _OWN)] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", help="Pictures of one process at a time.")
    ] = 64,
    accumulate: Annotated[int, typer.Option(help="Batches for each step.")] = 1,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, adamw, rmsproptf or another one of timm.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option("--lr", help="Learning rate after the warm-up, for the step as it is."),
    ] = None,
    momentum: Annotated[float | None, typer.Option(help="Of the optimiser.")] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Of convolutions and classifier.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="step, cosine or constant.")] = None,
    warmup_epochs: Annotated[float | None, typer.Option(help="With a growing rate.")] = None,
    decay_epochs: Annotated[float | None, typer.Option(help="Of the step schedule.")] = None,
    decay_rate: Annotated[float | None, typer.Option(help="Of the step schedule.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="0 for none.")] = None,
    ema: Annotated[
        float | None, typer.Option("--ema", help="Decay of the averaged weights; 0 for none.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Before the classifier.")] = None,
    drop_path: Annotated[float | None, typer.Option(help="Stochastic depth's last rate.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the images in pixels.")] = None,
    progressive_from: Annotated[
        int | None, typer.Option(help="Side at the beginning, which grows.")
    ] = None,
    progressive_stages: Annotated[int | None, typer.Option(help="Steps in which it grows.")] = None,
    crop: Annotated[str | None, typer.Option(help="random or centre.")] = None,
    area: Annotated[float | None, typer.Option(help="Smallest share of a random crop.")] = None,
    augment: Annotated[
        str | None,
        typer.Option(help="none, autoaugment-paper, autoaugment, randaugment or trivialaugment."),
    ] = None,
    magnitude: Annotated[int | None, typer.Option(help="Of RandAugment, 0 to 30.")] = None,
    mixup: Annotated[float | None, typer.Option(help="Beta distribution's parameter.")] = None,
    cutmix: Annotated[float | None, typer.Option(help="Beta distribution's parameter.")] = None,
    erase: Annotated[float | None, typer.Option(help="Probability.")] = None,
    batch_norm: Annotated[
        str | None,
        typer.Option(
            help="batch: by each batch's statistics; running: by the running ones; frozen: weights stay too."
        ),
    ] = None,
    bn_momentum: Annotated[
        float | None, typer.Option(help="Weight of a batch in running statistics.")
    ] = None,
    freeze: Annotated[
        int | None,
        typer.Option(
            help="0: keep the stem as it is; k: and the first k stages; 8: all but the classifier."
        ),
    ] = None,
    layer_decay: Annotated[
        float | None, typer.Option(help="Factor of the rate from one block to the one before.")
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient.")] = None,
    distillation: Annotated[
        float | None, typer.Option(help="The teacher's share of the loss.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the distillation.")] = None,
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, float16 (these by autocast) or float64.")
    ] = "float32",
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    workers: _WorkersOption = None,
    device: DeviceOption = None,
    sync_bn: Annotated[
        bool, typer.Option("--sync-bn", help="BatchNorm over all processes; needs GPUs.")
    ] = False,
    save_every: Annotated[
        int | None, typer.Option(help="Steps between two savings; after each epoch by default.")
    ] = None,
    bad_pictures: Annotated[
        int, typer.Option(help="Unreadable pictures to skip before giving up.")
    ] = 100,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what OUTPUT holds, if it holds anything.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard's files too.")
    ] = False,
    check_memory: Annotated[
        bool, typer.Option(help="Refuse a batch that does not fit into memory.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Train a model, or fine-tune one.

    Leaves the averaged weights in OUTPUT/model.safetensors, and OUTPUT/resume.pt to go on from.
    With several processes: torchrun --nproc-per-node N -m effkernels.cli train ...
    """
    call("train", locals())


def evaluate(
    data: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER",
            help="A folder of pictures for each class; 'fashion-mnist'; or shards: 'val-{00..09}.tar'.",
        ),
    ],
    weights: Annotated[
        str,
        typer.Option(
            "--weights", "-w", help="'imagenet', a checkpoint file, or 'hf-hub:owner/name'."
        ),
    ] = DEFAULT_WEIGHTS,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help=f"Model name; by default what the file states, or {DEFAULT_MODEL}.",
        ),
    ] = None,
    source: SourceOption = None,
    use_ema: UseEmaOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for pictures of confusion and calibration."),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Side of the images in pixels; the weights' own by default.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Pictures at a time.")] = 64,
    workers: _WorkersOption = None,
    device: DeviceOption = None,
    dtype: DTypeOption = "float32",
    as_json: JsonOption = False,
) -> None:
    """Top-1 and top-5 accuracy of weights on labelled pictures.

    Class folders are matched with the model's classes by name; ILSVRC's 1000 by their order.
    """
    call("evaluate", locals())
