"""From pictures to ranked classes: shared by demo and predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from effkernels.models import EfficientNet
from effkernels.train.building import class_names, load_trained


@dataclass(frozen=True)
class Ranked:
    """One class of a prediction. ``label`` is its name, or its index if the classes have no known
    names.
    """

    index: int
    label: str
    probability: float

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def load_model(
    name: str,
    weights: str,
    source: str | None,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    use_ema: bool | None = None,
) -> EfficientNet:
    """Build a model in eval mode, with as many classes and input channels as its weights have.

    Args:
        name, weights, source, use_ema: as for ``create_model``.
        device, dtype: of the parameters; dtype None keeps the weights' own.

    Raises:
        ValueError: unknown name; or the weights cannot be read or do not fit.
        ImportError: a package that the weights need is not installed.
    """
    return load_named(name, weights, source, device, dtype, use_ema=use_ema)[0]


def load_named(
    name: str,
    weights: str,
    source: str | None,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    use_ema: bool | None = None,
) -> tuple[EfficientNet, tuple[str, ...]]:
    """As :func:`load_model`; and the names of the classes."""
    built = load_trained(name, weights, source, device, dtype, use_ema=use_ema)
    return built.model, class_names(built.model.num_classes, built.classes)


def check_topk(topk: int, num_classes: int) -> None:
    """Check that ``topk`` does not exceed the number of classes.

    Raises:
        ValueError: ``topk`` is above ``num_classes``.
    """
    if topk > num_classes:
        raise ValueError(f"--topk must be at most {num_classes}, the number of classes; got {topk}")


def stack_for(model: EfficientNet, pictures: Sequence[Tensor]) -> Tensor:
    """Pictures, each (3, H, W), as one batch (N, 3, H, W) in the model's dtype, on its device."""
    weight = model.stem.conv.weight
    return torch.stack(list(pictures)).to(weight.device, weight.dtype)


@torch.inference_mode()
def logits_of(model: EfficientNet, pictures: Sequence[Tensor]) -> Tensor:
    """Logits of prepared pictures, each (3, H, W), as (N, num_classes) float32 on the CPU."""
    logits: Tensor = model(stack_for(model, pictures))
    return logits.float().cpu()


def rank(logits: Tensor, topk: int, names: Sequence[str] | None = None) -> list[list[Ranked]]:
    """The ``topk`` most likely classes of each row of (N, num_classes) logits, most likely first.

    Args:
        logits: finite.
        topk: at most num_classes.
        names: of the classes; None for ImageNet's, or numbers.

    Raises:
        ValueError: the logits are not finite.
    """
    if not torch.isfinite(logits).all():
        raise ValueError(
            "the model computed NaN or inf; float16 may have overflowed: try --dtype float32"
        )
    names = class_names(logits.shape[1], None) if names is None else names
    probabilities, indices = logits.softmax(dim=1).topk(topk, dim=1)
    return [
        [
            Ranked(index, names[index], probability)
            for index, probability in zip(row_indices, row, strict=True)
        ]
        for row_indices, row in zip(indices.tolist(), probabilities.tolist(), strict=True)
    ]
