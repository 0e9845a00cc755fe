"""The model that a training starts from, and the one that a training left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from effkernels.checkpoints import (
    FORMATS,
    Checkpoint,
    detect_format,
    load_into,
    read_state_dict,
    resolve,
)
from effkernels.checkpoints.loading import looks_like
from effkernels.data import imagenet_classes
from effkernels.models import CONFIGS, EfficientNet, EfficientNetConfig, build, get_config


@dataclass(frozen=True)
class Built:
    """A model, and the names of its classes if its weights state them."""

    model: EfficientNet
    classes: tuple[str, ...] | None


def scaled_config(
    model: str | EfficientNetConfig, width: float = 1.0, depth: float = 1.0
) -> EfficientNetConfig:
    """The architecture of a model, by name or as it is, with its width and depth multiplied.

    Raises:
        ValueError: no such model, or a factor that is not above 0.
    """
    config = get_config(model) if isinstance(model, str) else model
    for name, value in (("width", width), ("depth", depth)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    if width == depth == 1.0:
        return config
    old = config.coefficients
    coefficients = replace(old, width=old.width * width, depth=old.depth * depth)
    return replace(
        config, name=f"{config.name}(width={width:g}, depth={depth:g})", coefficients=coefficients
    )


def new_model(
    model: str | EfficientNetConfig,
    num_classes: int,
    *,
    width: float = 1.0,
    depth: float = 1.0,
    weights: str | None = None,
    source: str | None = None,
    use_ema: bool | None = None,
    **options: Any,
) -> EfficientNet:
    """A model to train: with random weights, or with those of a file.

    Where the number of classes differs, the classifier is new, and begins with zeros.

    Args:
        model, weights, source, use_ema: as in :func:`effkernels.create_model`; or ``model`` as a configuration.
        num_classes: of the classifier.
        width, depth: factors, as in :func:`scaled_config`.
        options: others of ``create_model``.

    Raises:
        ValueError: unknown model or weights, or weights of another model.
        ImportError: a package that the weights need.
    """
    config = scaled_config(model, width, depth)
    options |= {"num_classes": num_classes, "weights": weights}
    if weights is not None:
        checkpoint = resolve(weights, variant=config.name, source=source, use_ema=use_ema)
        other = checkpoint.num_classes != num_classes
        options |= {"source": source, "use_ema": use_ema, "reset_classifier": other}
    made = build(config, **options)
    assert isinstance(made, EfficientNet)
    if options.get("reset_classifier") and isinstance(made.classifier, nn.Linear):
        # The authors' random weights are made for 1000 classes: with few, logits are so large at first that their
        # loss spoils the features. From zero all classes are equally likely (Kolesnikov et al. 2020, arXiv 1912.11370).
        nn.init.zeros_(made.classifier.weight)
    return made


def load_trained(
    model: str,
    weights: str,
    source: str | None,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    use_ema: bool | None = None,
) -> Built:
    """A model in eval mode, with as many classes and input channels as its weights have.

    Args:
        model, weights, source, use_ema: as in :func:`effkernels.create_model`.
        device, dtype: of the parameters; dtype None keeps the weights' own.

    Raises:
        ValueError: unknown model; or the weights cannot be read, do not fit, or have no classifier.
        ImportError: a package that the weights need.
    """
    get_config(model)  # an unknown name should be the first error
    checkpoint = resolve(weights, variant=model, source=source, use_ema=use_ema)
    semantics, names = checkpoint.semantics, FORMATS[checkpoint.format]
    stem = _tensor(checkpoint, f"{names.stem_conv}.weight")
    classifier = _tensor(checkpoint, f"{names.classifier}.weight")
    made = build(
        scaled_config(model, *(checkpoint.multipliers or (1.0, 1.0))),
        num_classes=classifier.shape[0],
        in_channels=stem.shape[1],
        padding=semantics.padding,
        bn_eps=semantics.bn_eps,
        bn_momentum=semantics.bn_momentum,
        device=device,
        dtype=dtype or stem.dtype,
    )
    assert isinstance(made, EfficientNet)
    load_into(made, checkpoint)
    made.preprocessing = semantics.preprocessing or made.preprocessing
    return Built(made.eval(), checkpoint.classes)


def model_of(path: str) -> str:
    """The named model that a checkpoint file is of, by its record, or else by its shapes.

    Raises:
        ValueError: it cannot be read, or is of none.
    """
    contents = read_state_dict(path)
    stated = str(contents.record.get("variant", "")).partition("(")[0]
    found = stated or looks_like(contents.state_dict, FORMATS[detect_format(contents.state_dict)])
    if found not in CONFIGS:
        raise ValueError(f"{path} does not say which model it is of: pass --model")
    return found


def _tensor(checkpoint: Checkpoint, key: str) -> Tensor:
    if key not in checkpoint.state_dict:
        raise ValueError(
            f"{checkpoint.origin} lacks {key}: pass the weights of a complete classifier"
        )
    return checkpoint.state_dict[key]


def class_names(num_classes: int, stated: Sequence[str] | None) -> tuple[str, ...]:
    """Names of a model's classes: those that its weights state, ImageNet's if there are 1000, else numbers."""
    if stated is not None:
        return tuple(stated)
    names = imagenet_classes()
    if num_classes == len(names):
        return names
    return tuple(f"class {index}" for index in range(num_classes))
