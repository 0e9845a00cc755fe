"""Options that several subcommands share, and how their values are parsed."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

DEFAULT_MODEL = "efficientnet_lite0"
DEFAULT_WEIGHTS = "imagenet"


class Target(str, Enum):
    """Formats that ``convert`` can write."""

    timm = "timm"
    torchvision = "torchvision"
    effkernels = "effkernels"


_DTYPES = {
    "float32": ("float32", "fp32", "f32", "float"),
    "float16": ("float16", "fp16", "f16", "half"),
    "bfloat16": ("bfloat16", "bf16"),
}


def _dtype(given: str) -> str:
    """The torch name of a floating-point type that the ops support."""
    for name, spellings in _DTYPES.items():
        if given.lower().removeprefix("torch.") in spellings:
            return name
    raise typer.BadParameter(
        f"{given!r} is not one of float32, float16, bfloat16 (or fp32, fp16, bf16)"
    )


ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Model name; 'effkernels info' lists them.")
]
WeightsOption = Annotated[
    str,
    typer.Option("--weights", "-w", help="'imagenet', a checkpoint file, or 'hf-hub:owner/name'."),
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source",
        help="Who trained the weights, if the file does not say: 'timm/tf_efficientnet_b0'.",
    ),
]
UseEmaOption = Annotated[
    bool | None,
    typer.Option(
        "--use-ema/--no-use-ema",
        help="For a checkpoint with trained and averaged weights: whether to load the averaged ones.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="'cpu', 'cuda', 'cuda:1' ...; by default CUDA if available."),
]
ResolutionOption = Annotated[
    int | None, typer.Option(help="Input side in pixels; the model's own by default.")
]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", "-b", help="Pictures.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DTypeOption = Annotated[
    str,
    typer.Option(
        "--dtype",
        parser=_dtype,
        metavar="float32|float16|bfloat16",
        help="Of weights and activations; fp32, fp16 and bf16 are understood.",
    ),
]
