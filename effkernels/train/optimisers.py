"""What learns, how fast, and the average of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from effkernels.models import EfficientNet
from effkernels.train.extras import need
from effkernels.train.recipe import Recipe


def frozen_parts(model: EfficientNet, recipe: Recipe) -> list[nn.Module]:
    """The parts that ``recipe.freeze`` keeps as they are.

    Raises:
        ValueError: the model has no such stage.
    """
    if recipe.freeze is None:
        return []
    stages = len(model.stages)
    if recipe.freeze > stages + 1:
        raise ValueError(
            f"freeze must be at most {stages + 1} (the stem, {stages} stages and the head), got {recipe.freeze}"
        )
    parts = [model.stem, *list(model.stages)[: recipe.freeze]]
    return [*parts, model.head] if recipe.freeze > stages else parts


def freeze(model: EfficientNet, recipe: Recipe) -> None:
    """Let frozen parts require no gradients; of BatchNorms neither, where the recipe says so."""
    for part in frozen_parts(model, recipe):
        part.requires_grad_(False)
    if recipe.batch_norm == "frozen":
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.requires_grad_(False)


def training_mode(model: EfficientNet, recipe: Recipe) -> None:
    """``model.train()``, with those parts in eval mode that use running statistics; sets the recipe's dropout."""
    model.train()
    for part in frozen_parts(model, recipe):
        part.eval()
    if recipe.batch_norm != "batch":
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
    if recipe.dropout is not None:
        model.dropout.p = recipe.dropout


def parameter_groups(model: EfficientNet, recipe: Recipe, lr: float) -> list[dict[str, Any]]:
    """What learns, in groups of the same weight decay and learning rate.

    BatchNorm's weight and beta are not decayed, biases as the recipe says. With ``layer_decay``, block i of n
    learns with ``lr * layer_decay ** (n - i)``, by the model's ``group_matcher``.

    Raises:
        ValueError: nothing learns.
    """
    norms = {id(p) for m in model.modules() if isinstance(m, _BatchNorm) for p in m.parameters()}
    depths = dict(_depths(model)) if recipe.layer_decay != 1.0 else {}
    deepest = max(depths.values(), default=0)
    groups: dict[tuple[bool, int], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        bias = parameter.dim() <= 1 and id(parameter) not in norms
        decayed = id(parameter) not in norms and (recipe.decay_biases or not bias)
        key = decayed, depths.get(name, deepest)
        groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ValueError("everything is frozen: nothing would learn")
    return [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if decayed else 0.0,
            "lr": lr * recipe.layer_decay ** (deepest - depth),
        }
        for (decayed, depth), parameters in groups.items()
    ]


def _depths(model: EfficientNet) -> Iterator[tuple[str, int]]:
    models = need("timm.models", "layer_decay")
    groups = models.group_parameters(model, model.group_matcher(coarse=False))
    for depth, names in groups.items():
        for name in names:
            yield name, depth


def make_optimizer(model: EfficientNet, recipe: Recipe, batch: int) -> Optimizer:
    """The recipe's optimiser for steps of ``batch`` pictures, of all processes together.

    Raises:
        ImportError: it is timm's, and timm is not there.
        ValueError: timm has none of that name, or nothing learns.
    """
    lr = recipe.learning_rate(batch)
    groups = parameter_groups(model, recipe, lr)
    eps: dict[str, Any] = {} if recipe.eps is None else {"eps": recipe.eps}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0
        )
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, **eps)
    optim = need("timm.optim", f"the optimizer {recipe.optimizer!r}")
    try:
        made: Optimizer = optim.create_optimizer_v2(
            groups, opt=recipe.optimizer, lr=lr, momentum=recipe.momentum, **eps
        )
    except (ValueError, AssertionError) as error:
        known = "sgd, adamw, rmsproptf and the other optimisers of timm"
        raise ValueError(
            f"optimizer must be one of {known}, got {recipe.optimizer!r} ({error})"
        ) from None
    return made


def make_scheduler(optimizer: Optimizer, recipe: Recipe, steps: int) -> LambdaLR:
    """Sets the learning rate of each step by :meth:`Recipe.factor`, for ``steps`` steps in an epoch."""
    warm = recipe.warmup_epochs * steps
    # A step of the warm-up takes the rate at its end: with that at its beginning, the first one would be 0.
    return LambdaLR(optimizer, lambda step: recipe.factor((step + (step < warm)) / steps))


class Average(AveragedModel):
    """A moving average of weights and buffers, with the warm-up of TensorFlow's ``ExponentialMovingAverage``.

    In step t it keeps ``min(decay, (1 + t) / (10 + t))`` of itself; t counts from 0. Whole numbers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        def update(averages: Any, values: Any, steps: Any) -> None:
            # The count begins at 1: with 0 the first step would replace the initial weights.
            step = int(steps) - 1
            rate = 1.0 - min(decay, (1 + step) / (10 + step))
            _approach(averages, values, rate)

        super().__init__(model, multi_avg_fn=update, use_buffers=True)
        self.requires_grad_(False)
        self.n_averaged.fill_(1)
        self.eval()


@torch.no_grad()
def _approach(averages: Sequence[Tensor], values: Sequence[Tensor], rate: float) -> None:
    if averages[0].is_floating_point():
        torch._foreach_lerp_(list(averages), list(values), rate)
    else:
        torch._foreach_copy_(list(averages), list(values))
