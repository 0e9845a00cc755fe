"""The named models and how one is made."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, overload

import torch
from torch import Tensor

from effkernels import checkpoints
from effkernels.models.config import CONFIGS, EfficientNetConfig
from effkernels.models.efficientnet import EfficientNet, EfficientNetFeatures
from effkernels.models.scaling import Coefficients, compound_scale

Weights = str | os.PathLike[str] | Mapping[str, Tensor]


def list_models(pattern: str | None = None) -> list[str]:
    """Names for :func:`create_model`; ``pattern`` as in a shell, such as ``"*lite*"``."""
    return [name for name in CONFIGS if pattern is None or fnmatch.fnmatch(name, pattern)]


def get_config(name: str) -> EfficientNetConfig:
    """The architecture of a named model.

    Raises:
        ValueError: no such model; the closest names are suggested.
    """
    if name in CONFIGS:
        return CONFIGS[name]
    close = difflib.get_close_matches(str(name).lower().replace("-", "_"), CONFIGS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else "see effkernels.list_models()"
    raise ValueError(f"no model named {name!r}: {hint}")


@overload
def create_model(
    name: str, *, features_only: Literal[False] = False, **options: Any
) -> EfficientNet: ...


@overload
def create_model(
    name: str, *, features_only: Literal[True], **options: Any
) -> EfficientNetFeatures: ...


def create_model(
    name: str, *, features_only: bool = False, **options: Any
) -> EfficientNet | EfficientNetFeatures:
    """A model by name, in training mode, on the CPU in float32 unless said otherwise.

    Args:
        name: one of :func:`list_models`.
        features_only: an :class:`EfficientNetFeatures`, a backbone that returns feature maps.
        options: see :func:`build`.

    Raises:
        ValueError: no such model (the closest names are suggested), or an option out of range.
    """
    return build(get_config(name), features_only=features_only, **options)


def build(
    config: EfficientNetConfig,
    *,
    weights: Weights | None = None,
    source: str | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
    dropout: float | None = None,
    drop_path: float | None = None,
    padding: str | None = None,
    bn_eps: float | None = None,
    bn_momentum: float | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    reset_classifier: bool = False,
) -> EfficientNet | EfficientNetFeatures:
    """A model from its configuration.

    Args:
        config: the architecture.
        weights: None (random), a file (``.pth``, ``.safetensors``), a state dict, ``"hf-hub:owner/name"``
            or ``"imagenet"``; see :mod:`effkernels.checkpoints`. Padding, eps and momentum follow the
            weights' own; what is given here overrides them.
        source: where the weights come from, such as ``"timm/tf_efficientnet_b0"``, where they do not say.
        num_classes: 0 for none: the model then returns pooled features.
        in_channels: of the images.
        dropout: probability before the classifier; by model where None.
        drop_path: stochastic depth of the last block, less before; 0.2 where None.
        padding: "symmetric", or "same" (TensorFlow's at any size).
        bn_eps, bn_momentum: BatchNorm's, in PyTorch's sense; 1e-3 and 0.01 where None.
        device, dtype: of the parameters; PyTorch's defaults where None.
        features_only, out_indices: see :class:`EfficientNetFeatures`.
        reset_classifier: keep the fresh classifier, whatever the weights have.

    Raises:
        ValueError, TypeError: an option out of range, or weights that do not fit.
    """
    if out_indices is not None and not features_only:
        raise ValueError("out_indices needs features_only=True")
    if dtype is not None and not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating point type, got {dtype}")
    found = None
    if weights is not None:
        found = checkpoints.resolve(weights, variant=config.name, source=source)
        semantics = found.semantics
        config = replace(
            config,
            padding=semantics.padding,
            bn_eps=semantics.bn_eps,
            bn_momentum=semantics.bn_momentum,
        )
    elif source is not None:
        raise ValueError(f"source={source!r} says where weights come from: give weights too")
    given = {
        "dropout": dropout,
        "drop_path": drop_path,
        "padding": padding,
        "bn_eps": bn_eps,
        "bn_momentum": bn_momentum,
    }
    config = replace(config, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    where = torch.get_default_device() if device is None else torch.device(device)
    model: EfficientNet | EfficientNetFeatures
    # Built without storage, so that no initialisation but our own is computed. Under a mode that makes fake
    # tensors they have none anyway, and may not come from another mode's device.
    modes = torch._C._len_torch_dispatch_stack() > 0
    with where if modes else torch.device("meta"):
        if features_only:
            model = EfficientNetFeatures(config, in_channels=in_channels, out_indices=out_indices)
        else:
            model = EfficientNet(config, num_classes=num_classes, in_channels=in_channels)
    if dtype is not None:
        model.to(dtype)
    if not modes:
        model.to_empty(device=where)
    model.initialise()
    if found is not None:
        checkpoints.load_into(model, found, reset_classifier=reset_classifier)
        model.preprocessing = found.semantics.preprocessing or model.preprocessing
    return model


def efficientnet(
    *,
    phi: float,
    alpha: float = 1.2,
    beta: float = 1.1,
    gamma: float = 1.15,
    **options: Any,
) -> EfficientNet | EfficientNetFeatures:
    """An EfficientNet scaled by the paper's formula: depth alpha^phi, width beta^phi, resolution gamma^phi.

    The named models follow the formula only roughly. ``options`` as in :func:`build`.

    Raises:
        ValueError: a negative phi, or an option out of range.
    """
    scale = compound_scale(phi, alpha=alpha, beta=beta, gamma=gamma)
    coefficients = Coefficients(scale.width, scale.depth, scale.resolution, scale.dropout)
    name = f"efficientnet(phi={phi:g})"
    return build(EfficientNetConfig(name, coefficients, dropout=scale.dropout), **options)
