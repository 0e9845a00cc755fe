"""Write models in the formats of other code bases, without changing what they compute."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from effkernels.checkpoints.files import write_state_dict
from effkernels.checkpoints.formats import get_format, structure_of
from effkernels.checkpoints.prefixes import own_network
from effkernels.checkpoints.semantics import Semantics, twin


def export_state(state_dict: Mapping[str, Tensor], format: str) -> dict[str, Tensor]:
    """Rename a state dict of this package into another format. The tensors are the same objects.

    Args:
        state_dict: ``model.state_dict()`` of a model that is not fused; prefixes that wrappers
            added to its keys are removed, and keys outside of the network are left out.
        format: ``"effkernels"``, ``"timm"``, ``"torchvision"``, ``"lukemelas"``, ``"rangilyu"``,
            ``"torchvision_mobilenet"`` or ``"torchvision_resnet"``.

    Raises:
        ValueError: unknown format; a state dict that is not of this package, or of a fused model; a
            format without such networks (torchvision has no Lite models, RangiLyu only Lite
            models).
    """
    fmt = get_format(format)
    names = own_network(state_dict)
    ours = {key: state_dict[actual] for key, actual in names.items()}
    structure = structure_of(ours)
    if fmt.name != "effkernels":
        if "stem.conv.bias" in ours:
            raise ValueError(
                f"a fused model has no {fmt.name} form (its BatchNorm is gone): export the model "
                f"that fuse() was called on"
            )
        gated = any(block.gated for block in structure.blocks)
        if fmt.name == "torchvision" and not gated:
            raise ValueError("torchvision has no EfficientNet without squeeze-excitation (Lite)")
        if fmt.name == "rangilyu" and gated:
            raise ValueError("the rangilyu format has Lite models only, without squeeze-excitation")
    keys = fmt.keys(structure, ours)
    return {keys[key]: value for key, value in ours.items()}


def save_checkpoint(
    model: nn.Module | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    format: str = "effkernels",
    variant: str | None = None,
    semantics: Semantics | None = None,
    allow_semantics_change: bool = False,
    classes: Sequence[str] | None = None,
    multipliers: tuple[float, float] | None = None,
) -> None:
    """Save a model in any format, with a record of its semantics.

    The record (format, variant, BatchNorm constants, padding, preprocessing, and the name of the
    model of the other code base that computes the same) goes into the file's metadata.
    :func:`resolve` reads it, so our own files need no ``source``. For other code bases the file is
    a plain state dict; they ignore the record.

    Args:
        model: a model of this package, or its state dict.
        path: ``.pth``, ``.pt``, ``.bin`` or ``.safetensors``.
        format: as in :func:`export_state`.
        variant: our model name; needed with a state dict, otherwise taken from the model.
        semantics: likewise.
        allow_semantics_change: write the file even if no model of the other code base computes the
            same with these weights (because of another padding or eps). The record keeps the true
            semantics.
        classes: names, in the order of the classifier's outputs.
        multipliers: of width and depth, for a scaled model whose name says nothing of them.

    Raises:
        ValueError: as in :func:`export_state`; no model of the format's code base computes the
            same; a state dict without variant or semantics; the path cannot be written.
    """
    if isinstance(model, nn.Module):
        variant = variant or _config(model).name
        semantics = semantics or semantics_of(model)
        state_dict: Mapping[str, Tensor] = model.state_dict()
    else:
        state_dict = model
    if variant is None or semantics is None:
        raise ValueError(
            "a state dict alone does not say which model it is or how it pads: pass variant= and "
            "semantics=, or the model itself"
        )
    exported = export_state(state_dict, format)
    foreign = format != "effkernels"
    same = twin(format, variant, semantics) if foreign else None
    if foreign and same is None and not allow_semantics_change:
        raise ValueError(_no_twin(format, variant, semantics))
    record: dict[str, Any] = {
        "version": 1,
        "format": format,
        "variant": variant,
        "twin": same,
        "semantics": semantics.to_json(),
    }
    if classes is not None:
        record["classes"] = list(classes)
    if multipliers is not None:
        record["multipliers"] = list(multipliers)
    write_state_dict(exported, path, record)


def semantics_of(model: nn.Module) -> Semantics:
    """The semantics that a model of this package was built with.

    Raises:
        ValueError: ``model`` is not a model of this package.
    """
    config = _config(model)
    return Semantics(
        bn_eps=config.bn_eps,
        bn_momentum=config.bn_momentum,
        padding=config.padding,
        preprocessing=getattr(_bare(model), "preprocessing", None),
    )


def _bare(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DDP or torch.compile."""
    while not hasattr(model, "config"):
        inner = getattr(model, "module", getattr(model, "_orig_mod", None))
        if not isinstance(inner, nn.Module):
            raise ValueError(
                f"{type(model).__name__} is not an EfficientNet of this package: pass its state dict "
                f"with variant= and semantics="
            )
        model = inner
    return model


def _config(model: nn.Module) -> Any:
    return _bare(model).config


def _no_twin(fmt: str, variant: str, semantics: Semantics) -> str:
    message = (
        f"no {variant} of {fmt} computes the same as this model ({semantics.describe()}): loaded "
        f"there, the weights would give other logits. Pass allow_semantics_change=True to write "
        f"them anyway"
    )
    if fmt == "timm":
        same = ", pad_type='same'" if semantics.padding == "same" else ""
        message += (
            f", and load them with "
            f"timm.create_model({variant!r}, bn_eps={semantics.bn_eps:g}{same})"
        )
    return message
