"""Teachers: trained models whose logits another one learns from (Hinton et al. 2015, arXiv 1503.02531)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from effkernels.models import CONFIGS, EfficientNet
from effkernels.preprocessing import Preprocessing
from effkernels.train.building import load_trained, model_of

# Published constants of the same meaning differ in the third digit.
_SAME = 0.01


def load_teacher(
    teacher: str,
    preprocessing: Preprocessing | None,
    classes: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
) -> EfficientNet:
    """A teacher in eval mode, without gradients.

    Args:
        teacher: a model's name, for its ImageNet weights, or a checkpoint file.
        preprocessing, classes: of the student. Without ``preprocessing`` it takes any.
        device, dtype: of the teacher.

    Raises:
        ValueError: it has other classes, or takes images that are normalised otherwise.
    """
    named = teacher in CONFIGS
    model, weights = (teacher, "imagenet") if named else (model_of(teacher), teacher)
    built = load_trained(model, weights, None, device, dtype)
    found = built.model
    if found.num_classes != len(classes):
        raise ValueError(
            f"--teacher {teacher} has {found.num_classes} classes, the pictures have {len(classes)}"
        )
    if built.classes is not None and built.classes != tuple(classes):
        other = next((a, b) for a, b in zip(built.classes, classes, strict=True) if a != b)
        raise ValueError(
            f"--teacher {teacher} has other classes than the pictures: {other[0]!r} instead of {other[1]!r}"
        )
    if preprocessing is not None:
        _check_normalisation(teacher, found.preprocessing, preprocessing)
    return found.requires_grad_(False)


def _check_normalisation(teacher: str, given: Preprocessing, own: Preprocessing) -> None:
    for name in ("mean", "std"):
        theirs, ours = getattr(given, name), getattr(own, name)
        if any(abs(a - b) > _SAME for a, b in zip(theirs, ours, strict=True)):
            raise ValueError(
                f"--teacher {teacher} takes images normalised with {name} {_shown(theirs)}, the student with "
                f"{_shown(ours)}: both see the same images"
            )


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
