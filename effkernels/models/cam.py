"""Class activation maps: where in the image the logit of a class comes from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from effkernels.nn._plain import is_plain


def class_activation_map(model: Any, x: Tensor, class_index: int | Tensor | None) -> Tensor:
    """What :meth:`effkernels.EfficientNet.cam` returns."""
    classifier = model.classifier
    if not is_plain(classifier, nn.Linear):
        raise ValueError(
            f"class activation maps need a linear classifier, this model's is {type(classifier).__name__}"
        )
    features = model.forward_features(x)
    weight = classifier.weight
    if class_index is None:
        chosen = model.forward_head(features).argmax(1)
    else:
        chosen = _indices(class_index, len(features), weight.shape[0], features.device)
    # 16-bit features would be summed over a thousand channels.
    dtype = features.dtype if features.dtype.itemsize > 2 else torch.float32
    return torch.einsum("nchw,nc->nhw", features.to(dtype), weight[chosen].to(dtype))


def _indices(given: int | Tensor, images: int, classes: int, device: torch.device) -> Tensor:
    integers = isinstance(given, int) and not isinstance(given, bool)
    if isinstance(given, Tensor):
        integers = not (given.is_floating_point() or given.is_complex())
        integers = integers and given.dtype != torch.bool
    if not integers:
        shown = given.dtype if isinstance(given, Tensor) else repr(given)
        raise TypeError(f"class_index must be an int or a tensor of integers, got {shown}")
    chosen = torch.as_tensor(given, device=device).long()
    if chosen.dim() > 1 or (chosen.dim() == 1 and len(chosen) != images):
        raise ValueError(
            f"class_index must be one class, or one for each of {images} images, got shape "
            f"{tuple(chosen.shape)}"
        )
    if chosen.numel() and not 0 <= int(chosen.min()) <= int(chosen.max()) < classes:
        raise ValueError(
            f"class_index must lie in 0 to {classes - 1}, got {int(chosen.min())} to {int(chosen.max())}"
            if chosen.dim()
            else f"class_index must lie in 0 to {classes - 1}, got {int(chosen)}"
        )
    return chosen.expand(images)
