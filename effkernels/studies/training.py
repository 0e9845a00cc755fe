"""Trains one small network in seconds: pictures in memory, one thread, everything by the seed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from effkernels.models import EfficientNet
from effkernels.nn import SqueezeExcite
from effkernels.studies.architecture import Architecture
from effkernels.studies.setting import Pictures, Setting
from effkernels.train.optimisers import make_optimizer, make_scheduler, training_mode
from effkernels.train.randomness import STEP, WEIGHTS, derive, seeded
from effkernels.train.recipe import Recipe

_EVALUATED_AT_ONCE = 500


@dataclass(frozen=True)
class Training:
    """One network, how it is trained, and the seed of its weights and of the order of pictures.

    Args:
        architecture, setting, seed: these three decide the result.
        test: whether the accuracy on the test pictures is taken as well. Only for what is selected already.
    """

    architecture: Architecture
    setting: Setting
    seed: int
    test: bool = False

    def to_json(self) -> dict[str, Any]:
        """What decides the result, as plain JSON types."""
        return {
            "architecture": self.architecture.to_json(),
            "setting": self.setting.to_json(),
            "seed": self.seed,
            "test": self.test,
        }

    @cached_property
    def key(self) -> str:
        """A name of 16 digits for what decides the result."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it PyTorch computes in one thread, so that sums have one order and processes share a machine well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_network(training: Training, pictures: Pictures) -> dict[str, Any]:
    """Train a network and measure it on the pictures held out.

    Args:
        training: what to train. Equal ones give equal results on one machine.
        pictures: of its setting.

    Returns:
        ``accuracy`` (0 to 1) and ``loss`` on the pictures held out, ``test_accuracy`` where it is wanted, ``macs``,
        ``params``, and ``seconds`` of processor time.
    """
    return train_and_keep(training, pictures)[0]


def train_and_keep(training: Training, pictures: Pictures) -> tuple[dict[str, Any], EfficientNet]:
    """What :func:`train_network` returns, and the trained network."""
    setting, architecture = training.setting, training.architecture
    resolution, classes = architecture.config.resolution, len(pictures.classes)
    start = time.process_time()
    with one_thread():
        images, labels = pictures.train(resolution)
        with seeded(derive(training.seed, WEIGHTS)):
            model = architecture.build(classes, pictures.channels)
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        _by_layers(model)
        _learn(model, images, labels, setting.recipe, setting.batch, training.seed)
        accuracy, loss = measure(model, *pictures.held_out(resolution))
        result = {"accuracy": accuracy, "loss": loss}
        if training.test:
            result["test_accuracy"], _ = measure(model, *pictures.test(resolution))
    cost = architecture.cost(classes, pictures.channels)
    seconds = round(time.process_time() - start, 2)
    return {**result, "macs": cost.macs, "params": cost.params, "seconds": seconds}, model


class _SqueezeExciteByLayers(SqueezeExcite):
    """The same without the fused op, whose backward pass computes the forward pass again: a quarter of a "
    "step here."""

    def forward(self, x: Tensor) -> Tensor:
        reduce, expand = self.reduce, self.expand
        hidden = self.act(F.linear(x.mean((2, 3)), reduce.weight.flatten(1), reduce.bias))
        gate = torch.sigmoid(F.linear(hidden, expand.weight.flatten(1), expand.bias))
        return x * gate[:, :, None, None]


def _by_layers(model: EfficientNet) -> None:
    for module in model.modules():
        if type(module) is SqueezeExcite:
            module.__class__ = _SqueezeExciteByLayers


def _learn(
    model: EfficientNet, images: Tensor, labels: Tensor, recipe: Recipe, batch: int, seed: int
) -> None:
    steps = len(images) // batch
    optimizer = make_optimizer(model, recipe, batch)
    for group in optimizer.param_groups:  # calls count where layers take microseconds
        group["fused"] = True
    scheduler = make_scheduler(optimizer, recipe, steps)
    training_mode(model, recipe)
    for epoch in range(recipe.epochs):
        generator = torch.Generator().manual_seed(derive(seed, STEP, epoch))
        order = torch.randperm(len(images), generator=generator)[: steps * batch]
        for chosen in torch.split(order, batch):
            optimizer.zero_grad()
            logits = model(images[chosen])
            F.cross_entropy(
                logits, labels[chosen], label_smoothing=recipe.label_smoothing
            ).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()


@torch.no_grad()
def measure(model: EfficientNet, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy from 0 to 1, and the mean cross-entropy, in eval mode."""
    model.eval()
    right, loss = 0, 0.0
    for some, wanted in zip(
        torch.split(images, _EVALUATED_AT_ONCE),
        torch.split(labels, _EVALUATED_AT_ONCE),
        strict=True,
    ):
        logits = model(some)
        right += int((logits.argmax(1) == wanted).sum())
        loss += float(F.cross_entropy(logits, wanted, reduction="sum"))
    return right / len(labels), loss / len(labels)
