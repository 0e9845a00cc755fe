"""Trainings that take no time, and pictures that are learnt in a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from effkernels.models import EfficientNetConfig, StageConfig
from effkernels.models.scaling import Coefficients
from effkernels.studies import Pictures, Setting, Store, Trainer, Training
from effkernels.train import ArraySource, Recipe

TINY = Setting(pictures=200, held_out=100, batch=20)


def stripes(seed: int = 0, count: int = 320) -> ArraySource:
    """Pictures of 28 x 28 pixels in two classes: stripes across or along, with noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    wave = (np.arange(28) // 4 % 2 * 120).astype(np.int64)
    pictures = np.stack([np.tile(wave, (28, 1)) if label else np.tile(wave[:, None], (1, 28))
                         for label in labels])  # fmt: skip
    noisy = pictures + random.integers(0, 100, pictures.shape)
    return ArraySource(noisy.astype(np.uint8), labels.tolist(), ("across", "along"))


def colours(folder: Path, each: int = 30, size: tuple[int, int] = (40, 30)) -> Path:
    """Red and green pictures with noise; blue is what a square from the centre leaves out of them."""
    from PIL import Image

    random = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green")):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = random.integers(0, 60, (size[1], size[0], 3))
            pixels[..., channel] += 150
            ends = (size[0] - size[1]) // 2
            pixels[:, :ends] = pixels[:, size[0] - ends :] = (0, 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def little() -> EfficientNetConfig:
    """A base for pictures of 48 pixels, of 32 itself."""
    stages = (StageConfig(1, 3, 1, 1, 8), StageConfig(2, 3, 2, 4, 16), StageConfig(1, 3, 2, 4, 24))
    return EfficientNetConfig(
        "little",
        Coefficients(1.0, 1.0, 32, 0.0),
        stages,
        stem_channels=8,
        head_channels=32,
        dropout=0.0,
        drop_path=0.0,
        bn_momentum=0.3,
        channel_divisor=4,
    )


PLAIN = Recipe(
    epochs=2,
    optimizer="adamw",
    lr=0.01,
    lr_batch=None,
    eps=None,
    schedule="cosine",
    warmup_epochs=0.2,
    ema=0.0,
    crop="centre",
    augment="none",
    bn_momentum=0.3,
)
"""Needs no torchvision."""


def tiny_pictures(training: Training | None = None) -> Pictures:
    """Those of :data:`TINY`."""
    return Pictures(TINY, stripes(), lambda: stripes(1))


class FakeTrainings:
    """In the place of ``train_network``: accuracy grows with MACs, and with luck that depends on the seed."""

    def __init__(self, luck: float = 0.01) -> None:
        self.luck, self.keys = luck, []  # type: float, list[str]

    def __call__(self, training: Training, pictures: Any) -> dict[str, Any]:
        self.keys.append(training.key)
        cost = training.architecture.cost(10, 1)
        text = json.dumps(training.to_json(), sort_keys=True)
        accuracy = 1 - 0.3 * (cost.macs / 1e6) ** -0.1 + self.luck * (Random(text).random() - 0.5)
        result = {"accuracy": accuracy, "loss": 1.0, "seconds": 0.0}
        result |= {"test_accuracy": accuracy - 0.01} if training.test else {}
        return {**result, "macs": cost.macs, "params": cost.params}


def trainer_in(folder: Path, **options: Any) -> Trainer:
    """A trainer with a store in ``folder``; pictures are not opened."""
    nothing: Callable[[Setting], Any] = lambda setting: None  # noqa: E731
    return Trainer(Store(folder / "trainings.jsonl"), open_pictures=nothing, **options)
