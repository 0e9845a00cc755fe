"""Changes to tensors of a model that a kernel has to notice, as functions that can be sent to another process."""

from __future__ import annotations

from collections.abc import Callable

import torch

from effkernels import EfficientNet


def in_place(model: EfficientNet) -> None:
    model.stages[1][0].project.bn.running_mean.add_(1.0)


def data(model: EfficientNet) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.25


def strides(model: EfficientNet) -> None:
    """A kernel of 1x1 whose rows are not dense, which has to be copied."""
    weight = model.stages[1][0].project.conv.weight
    weight.data = torch.stack((weight.data, weight.data), 2)[:, :, 0]


def alignment(model: EfficientNet) -> None:
    """Weights that begin in the middle of 16 bytes: other kernels have to read them."""
    for weight in (model.head.conv.weight, model.classifier.weight):
        moved = torch.empty(weight.numel() + 1, dtype=weight.dtype, device=weight.device)[1:]
        moved.copy_(weight.data.flatten() * 1.5)
        weight.data = moved.view(weight.shape)


def dtype_of_vectors(model: EfficientNet) -> None:
    bn = model.stages[1][0].project.bn
    bn.running_var.data = bn.running_var.data.float() * 2


CHANGES: dict[str, Callable[[EfficientNet], None]] = {
    f.__name__: f for f in (in_place, data, strides, alignment, dtype_of_vectors)
}
