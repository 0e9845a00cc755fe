"""The options that every model takes: their types, and errors that name the right one."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor

Weights = str | os.PathLike[str] | Mapping[str, Tensor]


class ModelOptions(TypedDict, total=False):
    """Keyword arguments of every model, as type checkers see them; :func:`build` says what they mean."""

    weights: Weights | None
    source: str | None
    use_ema: bool | None
    num_classes: int
    in_channels: int
    dropout: float | None
    drop_path: float | None
    padding: str | None
    bn_eps: float | None
    bn_momentum: float | None
    device: torch.device | str | None
    dtype: torch.dtype | str | None
    out_indices: Sequence[int] | None
    reset_classifier: bool


OPTIONS = (*ModelOptions.__annotations__, "features_only")
"""Names of all options."""

# What timm, torchvision and others call the same thing.
_ELSEWHERE = {
    "pretrained": 'weights="imagenet" (or a file)',
    "checkpoint_path": "weights",
    "state_dict": "weights",
    "in_chans": "in_channels",
    "chans": "in_channels",
    "classes": "num_classes",
    "drop_rate": "dropout",
    "dropout_rate": "dropout",
    "drop_path_rate": "drop_path",
    "drop_connect_rate": "drop_path",
    "stochastic_depth_prob": "drop_path",
    "pad_type": 'padding="same" or "symmetric"',
    "bn_tf": "bn_eps and bn_momentum",
    "norm_layer": "bn_eps and bn_momentum",
    "batch_norm_epsilon": "bn_eps",
    "batch_norm_momentum": "bn_momentum (in PyTorch's sense)",
}

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp64": torch.float64,
    "float": torch.float32,
    "half": torch.float16,
    "double": torch.float64,
}


def check_options(function: str, given: Collection[str], accepted: Collection[str]) -> None:
    """Every keyword in ``given`` must be one of ``accepted``.

    Raises:
        TypeError: it names the one that was meant, where that can be told.
    """
    for name in given:
        if name in accepted:
            continue
        close = difflib.get_close_matches(name, accepted, n=1)
        meant = _ELSEWHERE.get(name) or (close[0] if close else None)
        hint = f"use {meant}" if meant else f"it has {', '.join(accepted)}"
        raise TypeError(f"{function}() has no argument {name!r}: {hint}")


def as_dtype(name: str, dtype: torch.dtype | str) -> torch.dtype:
    """A floating-point dtype, given as itself or by its name, such as ``"bfloat16"`` or ``"bf16"``.

    Raises:
        TypeError: neither, or a dtype that models cannot have.
        ValueError: an unknown name.
    """
    if isinstance(dtype, str):
        found = _DTYPES.get(dtype.removeprefix("torch."))
        if found is None:
            raise ValueError(f"{name} must be one of {', '.join(_DTYPES)}, got {dtype!r}")
        return found
    if not isinstance(dtype, torch.dtype) or dtype not in _DTYPES.values():
        raise TypeError(
            f"{name} must be a floating-point torch.dtype of 16 to 64 bits or its name, got {dtype!r}"
        )
    return dtype


def show_options(function: Callable[..., Any], options: Callable[..., Any]) -> None:
    """Let help() and editors show the keyword arguments of ``options`` for ``function``'s ``**options``."""
    own = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    names = {parameter.name for parameter in own}
    theirs = inspect.signature(options)
    added = [
        parameter
        for parameter in theirs.parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name not in names
    ]
    shown: Any = function  # a function's type has no signature that could be set
    shown.__signature__ = theirs.replace(parameters=[*own, *added])
