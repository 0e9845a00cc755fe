"""From pictures to ranked classes: shared by demo and predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from effkernels.data import imagenet_classes
from effkernels.models import EfficientNet
from effkernels.train.building import load_trained


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
    return load_trained(name, weights, source, device, dtype, use_ema=use_ema).model


def label(index: int, num_classes: int) -> str:
    """The name of an ImageNet class if there are 1000 classes, else its index."""
    names = imagenet_classes()
    return names[index] if num_classes == len(names) else f"class {index}"


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


def rank(logits: Tensor, topk: int) -> list[list[Ranked]]:
    """The ``topk`` most likely classes of each row of (N, num_classes) logits, most likely first.

    Raises:
        ValueError: the logits are not finite.
    """
    if not torch.isfinite(logits).all():
        raise ValueError(
            "the model computed NaN or inf; float16 may have overflowed: try --dtype float32"
        )
    num_classes = logits.shape[1]
    probabilities, indices = logits.softmax(dim=1).topk(topk, dim=1)
    return [
        [
            Ranked(index, label(index, num_classes), probability)
            for index, probability in zip(row_indices, row, strict=True)
        ]
        for row_indices, row in zip(indices.tolist(), probabilities.tolist(), strict=True)
    ]
