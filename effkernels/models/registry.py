"""The named models and how one is made."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from effkernels import checkpoints
from effkernels.models.baselines import BASELINES
from effkernels.models.config import EfficientNetConfig
from effkernels.models.efficientnet import EfficientNet, EfficientNetFeatures
from effkernels.models.options import (
    OPTIONS,
    ModelOptions,
    Weights,
    as_dtype,
    check_options,
    show_options,
)
from effkernels.models.scaling import ALPHA, BETA, GAMMA, compound_scale
from effkernels.models.variants import CONFIGS

if TYPE_CHECKING:
    from typing_extensions import Unpack


def list_models(pattern: str | None = None) -> list[str]:
    """Names for :func:`create_model`; ``pattern`` as in a shell, such as ``"*lite*"``."""
    return [name for name in CONFIGS if pattern is None or fnmatch.fnmatch(name, pattern)]


def get_config(name: str) -> EfficientNetConfig:
    """The architecture of a named model, or of one of :data:`BASELINES`.

    Raises:
        ValueError: no such model; the closest names are suggested.
    """
    known = {**CONFIGS, **BASELINES}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(str(name).lower().replace("-", "_"), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else "see effkernels.list_models()"
    raise ValueError(f"no model named {name!r}: {hint}")


@overload
def create_model(
    name: str, *, features_only: Literal[False] = False, **options: Unpack[ModelOptions]
) -> EfficientNet: ...


@overload
def create_model(
    name: str, *, features_only: Literal[True], **options: Unpack[ModelOptions]
) -> EfficientNetFeatures: ...


@overload
def create_model(
    name: str, *, features_only: bool, **options: Unpack[ModelOptions]
) -> EfficientNet | EfficientNetFeatures: ...


def create_model(
    name: str, *, features_only: bool = False, **options: Any
) -> EfficientNet | EfficientNetFeatures:
    """A model by name, in training mode, on the CPU in float32 unless said otherwise.

    Args:
        name: one of :func:`list_models`, or of :data:`effkernels.models.BASELINES`.
        features_only: an :class:`EfficientNetFeatures`, a backbone that returns feature maps.
        options: those of :func:`build`.

    Raises:
        ValueError: no such model (the closest names are suggested), or an option out of range.
        TypeError: an option of another name (the right one is suggested) or of the wrong type.
    """
    check_options("create_model", options, OPTIONS)
    return build(get_config(name), features_only=features_only, **options)


def build(
    config: EfficientNetConfig,
    *,
    weights: Weights | None = None,
    source: str | None = None,
    use_ema: bool | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
    dropout: float | None = None,
    drop_path: float | None = None,
    padding: str | None = None,
    bn_eps: float | None = None,
    bn_momentum: float | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
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
        use_ema: of a training checkpoint that holds plain and averaged weights: take the averaged ones,
            or the plain ones (False).
        num_classes: 0 for none: the model then returns pooled features. With ``weights="imagenet"``,
            whose classifier has 1000, any other number leaves the classifier freshly initialised, for
            fine-tuning; weights that may be of any number ask for ``reset_classifier``.
        in_channels: of the images.
        dropout: probability before the classifier; by model where None.
        drop_path: rate of stochastic depth, which the last block approaches; the configuration's where None.
        padding: "symmetric", or "same" (TensorFlow's at any size).
        bn_eps, bn_momentum: BatchNorm's, in PyTorch's sense; the weights' or the configuration's where None.
        device, dtype: of the parameters; PyTorch's defaults where None. A dtype may be given by its name:
            "float32", "bfloat16" ("bf16"), "float16" ("fp16"), "float64".
        features_only, out_indices: see :class:`EfficientNetFeatures`.
        reset_classifier: keep the fresh classifier, whatever the weights have.

    Raises:
        ValueError, TypeError: an option out of range, or weights that do not fit.
    """
    if out_indices is not None and not features_only:
        raise ValueError("out_indices needs features_only=True")
    if dtype is not None:
        dtype = as_dtype("dtype", dtype)
    found = None
    if weights is not None:
        found = checkpoints.resolve(weights, variant=config.name, source=source, use_ema=use_ema)
        semantics = found.semantics
        config = replace(
            config,
            padding=semantics.padding,
            bn_eps=semantics.bn_eps,
            bn_momentum=semantics.bn_momentum,
        )
    elif source is not None:
        raise ValueError(f"source={source!r} says where weights come from: give weights too")
    elif use_ema is not None:
        raise ValueError(f"use_ema={use_ema} chooses among the weights of a file: give weights too")
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
        # Not to_empty: it calls empty_like, which for tensors without storage imports sympy, and that takes 0.7 s.
        model._apply(lambda t: torch.empty(t.shape, dtype=t.dtype, device=where))
    model.initialise()
    if found is not None:
        if isinstance(model, EfficientNet) and isinstance(weights, str) and weights == "imagenet":
            # Nobody can mean to load 1000 classes into another number of them.
            reset_classifier |= num_classes not in (0, checkpoints.IMAGENET_CLASSES)
        checkpoints.load_into(model, found, reset_classifier=reset_classifier)
        model.preprocessing = found.semantics.preprocessing or model.preprocessing
    return model


@overload
def efficientnet(
    *,
    phi: float,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    base: str | EfficientNetConfig = "efficientnet_b0",
    features_only: Literal[False] = False,
    **options: Unpack[ModelOptions],
) -> EfficientNet: ...


@overload
def efficientnet(
    *,
    phi: float,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    base: str | EfficientNetConfig = "efficientnet_b0",
    features_only: Literal[True],
    **options: Unpack[ModelOptions],
) -> EfficientNetFeatures: ...


def efficientnet(
    *,
    phi: float,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    base: str | EfficientNetConfig = "efficientnet_b0",
    **options: Any,
) -> EfficientNet | EfficientNetFeatures:
    """An EfficientNet scaled by the paper's formula: depth alpha^phi, width beta^phi, resolution gamma^phi.

    The named models follow the formula only roughly. ``base`` is the network at phi 0, by name or as a configuration:
    its own depth, width and resolution are multiplied. ``options`` as in :func:`build`.

    Raises:
        ValueError: a negative phi, a name that no model has, or an option out of range.
        TypeError: an option of another name (the right one is suggested) or of the wrong type.
    """
    check_options("efficientnet", options, ("phi", "alpha", "beta", "gamma", "base", *OPTIONS))
    network = base if isinstance(base, EfficientNetConfig) else get_config(base)
    scale = compound_scale(
        phi, alpha=alpha, beta=beta, gamma=gamma, base_resolution=network.resolution
    )
    config = network.compound(scale)
    if base == "efficientnet_b0":
        config = replace(config, name=f"efficientnet(phi={phi:g})")
    return build(config, **options)


show_options(create_model, build)
show_options(efficientnet, build)
