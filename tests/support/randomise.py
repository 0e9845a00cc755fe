"""Models without default values, so that parameters that are ignored or mixed up change the result."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def randomise(model: Model, *, batch: int = 4, size: int = 64) -> Model:
    """Random weights and BatchNorm, with statistics close to those of activations for such images.

    Without these statistics activations, and with them rounding errors, would grow through the
    network.
    """
    training = model.training
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    for convolution in convolutions:
        nn.init.kaiming_normal_(convolution.weight)
        if convolution.bias is not None:
            convolution.bias.uniform_(-0.5, 0.5)
    for linear in (m for m in model.modules() if isinstance(m, nn.Linear)):
        linear.weight.normal_(0.0, linear.in_features**-0.5)
        linear.bias.uniform_(-0.5, 0.5)
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-0.3, 0.3)
        norm.momentum = 1.0
    weight = convolutions[0].weight
    model.train()(torch.randn(batch, weight.shape[1], size, size, dtype=weight.dtype))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.running_mean += 0.1 * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
        # A channel that hardly varied here would be scaled up too much where it varies more.
        norm.running_var.clamp_(min=norm.running_var.mean().item())
    return model.train(training)
