"""Load a checkpoint of any known format into a model: all of it, or nothing."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from effkernels.checkpoints.formats import EFFKERNELS, get_format, listed, structure_of
from effkernels.checkpoints.layout import Format, Structure
from effkernels.checkpoints.prefixes import own_network
from effkernels.checkpoints.semantics import Semantics
from effkernels.models.variants import CONFIGS

_CLASSIFIER = ("classifier.weight", "classifier.bias")
_STEM = "stem.conv.weight"


@dataclass(frozen=True)
class Checkpoint:
    """A state dict together with its format and semantics.

    ``state_dict`` has the file's keys without wrapper prefixes, ``format`` is the name of their format,
    ``semantics`` says how the model has to be built, and ``origin`` names the checkpoint in messages.
    ``record`` is what :func:`save_checkpoint` wrote beside the tensors; empty in other files.
    """

    state_dict: dict[str, Tensor]
    format: str
    semantics: Semantics
    origin: str
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Outputs of its classifier; 0 if it has none."""
        weight = self.state_dict.get(f"{get_format(self.format).classifier}.weight")
        return 0 if weight is None else weight.shape[0]

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, where the file states them."""
        names = self.record.get("classes")
        if not isinstance(names, list) or len(names) != self.num_classes:
            return None
        return tuple(map(str, names))

    @property
    def multipliers(self) -> tuple[float, float] | None:
        """Factors of width and depth of a scaled model, where the file states them."""
        found = self.record.get("multipliers")
        return (float(found[0]), float(found[1])) if isinstance(found, list) else None


def load_into(model: nn.Module, checkpoint: Checkpoint, *, reset_classifier: bool = False) -> None:
    """Copy a checkpoint into a model, in the model's dtype and on its device.

    Every tensor of the model must be in the checkpoint with the same shape, and every tensor of the
    checkpoint must belong to the model. Exceptions are ``num_batches_tracked``, which old files lack,
    and what a headless model (``features_only``) leaves out: head, classifier and the stages after
    its last. The model changes only if everything fits.

    The semantics are not checked here: build the model with ``checkpoint.semantics``.

    Args:
        model: an EfficientNet of this package, also wrapped (DataParallel, or torch.compile of the model
            or of parts) or inside another module, whose other parts stay as they are.
        checkpoint: from :func:`resolve`.
        reset_classifier: keep the model's own classifier and ignore the checkpoint's, for a model with
            other classes. The classifier of a new model is freshly initialised.

    Raises:
        ValueError: another variant; missing, unexpected or wrongly shaped tensors; another number of
            classes or input channels; NaN or inf; values that the model's dtype cannot hold; or a
            model on the meta device.
    """
    wrapped = model.state_dict()
    names = own_network(wrapped)
    target = {key: wrapped[actual] for key, actual in names.items()}
    if any(value.is_meta for value in target.values()):
        raise ValueError(
            f"cannot load {checkpoint.origin} into a model on the meta device: it has no memory to "
            f"copy to. Build it on a real device, or call model.to_empty(device=...) first"
        )
    fmt = get_format(checkpoint.format)
    structure = structure_of(target)
    wanted = fmt.keys(structure, target)
    if reset_classifier:
        for key in _CLASSIFIER:
            wanted.pop(key, None)
    _check_keys_and_shapes(checkpoint, fmt, structure, target, wanted)
    present = {
        ours: checkpoint.state_dict[theirs]
        for ours, theirs in wanted.items()
        if theirs in checkpoint.state_dict
    }
    _check_values(checkpoint.origin, present, target)
    new = {names[key]: value for key, value in present.items()}
    model.load_state_dict({**wrapped, **new})


def looks_like(state_dict: Mapping[str, Tensor], fmt: Format) -> str | None:
    """The named model whose block count and widths a state dict has, or None."""
    names = fmt.layers.get("expanding")
    if names is None:
        return None
    blocks: dict[tuple[int | None, ...], int] = {}
    for key, value in state_dict.items():
        place = fmt.locate(key)
        if place is None or place.part != "block":
            continue
        block = (place.stage, place.block, place.index)
        is_projection = key.endswith(f".{names['project.conv']}.weight")
        blocks[block] = value.shape[0] if is_projection else blocks.get(block, 0)
    if not blocks:
        return None
    reduce = names.get("squeeze_excite.reduce")  # not every format has a name for it
    gated = reduce is not None and any(key.endswith(f".{reduce}.weight") for key in state_dict)
    last = max(blocks, key=lambda block: tuple(number or 0 for number in block))
    return _variant_shapes().get((len(blocks), blocks[last], gated))


@functools.cache
def _variant_shapes() -> dict[tuple[int, int, bool], str]:
    """(blocks, output channels of the last block, squeeze-excitation): together unique to each named model."""
    shapes = {}
    for name, config in CONFIGS.items():
        blocks = list(config.blocks())
        gated = any(block.squeeze_channels for block in blocks)
        shapes[len(blocks), blocks[-1].out_channels, gated] = name
    return shapes


def _check_keys_and_shapes(
    checkpoint: Checkpoint,
    fmt: Format,
    structure: Structure,
    target: Mapping[str, Tensor],
    wanted: Mapping[str, str],
) -> None:
    given = checkpoint.state_dict
    missing = [
        theirs
        for theirs in wanted.values()
        if theirs not in given and not theirs.endswith("num_batches_tracked")
    ]
    used = {*wanted.values(), *(fmt.keys(structure, target).values())}
    unexpected = [key for key in given if key not in used and not _beyond(key, fmt, structure)]
    wrong = [
        ours
        for ours, theirs in wanted.items()
        if theirs in given and given[theirs].shape != target[ours].shape
    ]
    if not (missing or unexpected or wrong):
        return

    intro = f"{checkpoint.origin} (format {fmt.name})"
    theirs_like, ours_like = looks_like(given, fmt), looks_like(target, EFFKERNELS)
    if theirs_like is not None and theirs_like != ours_like and structure.head:
        intro += f" looks like {theirs_like}, and the model is {ours_like or 'none of that shape'}"
    elif not missing and not unexpected and set(wrong) <= set(_CLASSIFIER):
        raise ValueError(
            f"{intro} has {given[wanted[wrong[0]]].shape[0]} classes, the model "
            f"{target[wrong[0]].shape[0]}: pass reset_classifier=True to keep the model's own new "
            f"classifier (to fine-tune it), or build the model with the checkpoint's num_classes"
        )
    elif not missing and not unexpected and wrong == [_STEM]:
        raise ValueError(
            f"{intro} takes {given[wanted[_STEM]].shape[1]} input channels, the model "
            f"{target[_STEM].shape[1]}: build the model with the checkpoint's in_channels, or "
            f"adapt {wanted[_STEM]} in the state dict yourself and pass that"
        )
    else:
        intro += " does not fit the model"
    if "stem.conv.bias" in target:
        intro += "; the model is fused: load first, then call fuse()"
    shapes = [
        f"{wanted[ours]} {tuple(given[wanted[ours]].shape)} instead of {tuple(target[ours].shape)}"
        for ours in wrong
    ]
    parts = [
        f"{len(names)} {what}: {listed(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of the wrong shape", shapes),
        )
        if names
    ]
    raise ValueError(f"{intro}. {'; '.join(parts)}")


def _beyond(key: str, fmt: Format, structure: Structure) -> bool:
    """Whether ``key`` belongs to a part that the model leaves out by design."""
    place = fmt.locate(key)
    if place is None:
        return False
    if place.part == "classifier":
        return not structure.classifier
    if structure.head or structure.classifier:  # a classifier may have no head
        return False
    if place.part == "head":
        return True
    if place.index is not None:
        return place.index >= len(structure.blocks)
    return place.stage is not None and place.stage >= structure.stages


def _check_values(origin: str, present: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Refuse values that would load without an error and give meaningless results."""
    not_float, not_finite, overflowing, negative = [], [], [], []
    for key, value in present.items():
        dtype = target[key].dtype
        if not dtype.is_floating_point:
            continue
        if not value.is_floating_point() or value.is_meta:
            not_float.append(key)
        elif not torch.isfinite(value.float() if value.dtype.itemsize == 1 else value).all():
            not_finite.append(key)
        elif value.dtype != dtype and not torch.isfinite(value.to(dtype)).all():
            overflowing.append(key)
        elif key.endswith("running_var") and (value < 0).any():
            negative.append(key)
    for keys, problem in (
        (not_float, "are not floating-point tensors"),
        (not_finite, "contain NaN or inf"),
        (overflowing, f"overflow the model's dtype ({_dtype(target)})"),
        (negative, "hold negative variances"),
    ):
        if keys:
            raise ValueError(f"{origin}: {len(keys)} tensors {problem}: {listed(keys)}")


def _dtype(target: Mapping[str, Tensor]) -> str:
    return str(target[_STEM].dtype).removeprefix("torch.")
