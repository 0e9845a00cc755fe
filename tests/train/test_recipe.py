"""Recipes as data, and the learning rates, losses and transforms that follow from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from effkernels import train
from effkernels.models import CONFIGS
from effkernels.preprocessing import Preprocessing
from effkernels.train.transforms import TrainingTransform, mixing, training_loss
from oracles import oracle


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = train.recipe_for("efficientnet_b7")
    assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("rmsproptf", 0.9, 1e-5)
    assert recipe.learning_rate(4096) == pytest.approx(0.256)
    assert (recipe.label_smoothing, recipe.ema, recipe.epochs) == (0.1, 0.9999, 350)
    assert (recipe.dropout, recipe.drop_path, recipe.resolution) == (0.5, 0.2, 600)
    dropouts = [train.recipe_for(f"efficientnet_b{i}").dropout for i in range(8)]
    assert dropouts == [0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5]  # section 5.2: from 0.2 to 0.5
    for name in CONFIGS:
        for recipe_name in train.RECIPES:
            train.recipe_for(name, recipe_name)


def test_the_papers_learning_rate() -> None:
    recipe = train.Recipe()
    assert [recipe.factor(epoch) for epoch in (0.0, 1.0, 2.5)] == [0.0, 0.2, 0.5]
    # After the warm-up: 0.97 for each 2.4 epochs since the beginning.
    assert recipe.factor(5.0) == pytest.approx(0.97**2)
    assert recipe.factor(7.19) == pytest.approx(0.97**2)
    assert recipe.factor(7.2) == pytest.approx(0.97**3)
    assert recipe.factor(349.9) == pytest.approx(0.97**145)


def test_cosine_and_constant() -> None:
    recipe = train.Recipe(schedule="cosine", epochs=10, warmup_epochs=2)
    assert recipe.factor(2.0) == 1.0
    assert recipe.factor(6.0) == pytest.approx(0.5)
    assert recipe.factor(10.0) == pytest.approx(0.0)
    assert train.Recipe(schedule="constant", warmup_epochs=0).factor(200.0) == 1.0


def test_progressive_training_grows_everything() -> None:
    recipe = train.recipe_for(
        *("efficientnet_b4", "sgd"),
        epochs=8,
        progressive_from=128,
        magnitude=15,
        resolution=380,
        mixup=0.3,
        cutmix=0.0,
    )
    stages = [recipe.at_epoch(epoch) for epoch in range(8)]
    assert [s.resolution for s in stages] == [128, 128, 212, 212, 296, 296, 380, 380]
    assert [s.magnitude for s in stages[::2]] == [5, 8, 12, 15]
    assert [s.mixup for s in stages[::2]] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert [s.dropout for s in stages[::2]] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert stages[-1] == recipe


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epochs": 2.5}, TypeError, "epochs must be a whole number, got 2.5"),
        ({"lr": 0.0}, ValueError, "lr must be above 0"),
        ({"lr": -0.1}, ValueError, "lr must be finite and at least 0, got -0.1"),
        ({"lr": math.nan}, ValueError, "lr must be finite and at least 0, got nan"),
        ({"lr": math.inf}, ValueError, "lr must be finite"),
        ({"weight_decay": -1e-5}, ValueError, "weight_decay must be finite and at least 0"),
        ({"label_smoothing": 1.0}, ValueError, "label_smoothing must be below 1"),
        ({"ema": 1.5}, ValueError, "ema must be from 0 to 1, got 1.5"),
        ({"dropout": -0.1}, ValueError, "dropout must be from 0 to 1"),
        ({"schedule": "linear"}, ValueError, "schedule must be one of step, cosine, constant"),
        ({"augment": "all"}, ValueError, "augment must be one of none, autoaugment"),
        ({"magnitude": 31}, ValueError, "magnitude must be at least 0 and at most 30, got 31"),
        ({"clip": 0.0}, ValueError, "clip must be above 0"),
        ({"lr": "high"}, TypeError, "lr must be a number, got 'high'"),
        ({"learning_rate": 1}, TypeError, "a recipe has no 'learning_rate'"),
    ],
)
def test_values_out_of_range(changes: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        train.recipe_for("efficientnet_b0", **changes)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="no recipe named 'best': there are paper, sgd"):
        train.recipe_for("efficientnet_b0", "best")
    with pytest.raises(ValueError, match="no model named"):
        train.recipe_for("efficientnet_b00")


def test_the_loss_of_distillation() -> None:
    logits, teacher = torch.randn(5, 4).double(), torch.randn(5, 4).double()
    labels = torch.tensor([0, 1, 2, 3, 0])
    recipe = train.Recipe(label_smoothing=0.1, distillation=0.3, temperature=3.0)
    hard = F.cross_entropy(logits, labels, label_smoothing=0.1)
    p, q = (teacher / 3).softmax(1), (logits / 3).softmax(1)
    soft = 9 * (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(training_loss(logits, labels, recipe), hard)
    told = training_loss(logits, labels, recipe, teacher)
    torch.testing.assert_close(told, 0.7 * hard + 0.3 * soft)
    shares = F.one_hot(labels, 4).float()
    torch.testing.assert_close(training_loss(logits, shares, recipe), hard)


def noise(side: int = 80) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side + 20, 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("augment", ["none", "autoaugment", "randaugment", "trivialaugment"])
def test_transforms_follow_the_seed(augment: str) -> None:
    oracle("torchvision")
    recipe = train.Recipe(augment=augment, erase=0.5, resolution=48)  # type: ignore[arg-type]
    check_transform(recipe)


def test_the_authors_autoaugment_follows_the_seed() -> None:
    oracle("timm")
    check_transform(train.Recipe(resolution=48))


def check_transform(recipe: train.Recipe) -> None:
    transform = TrainingTransform(recipe, Preprocessing())
    picture, found = noise(), []
    for seed in (1, 2, 1):
        with train.randomness.seeded(seed):
            found.append(transform(picture))
    assert found[0].shape == (3, 48, 48)
    assert found[0].dtype == torch.float32
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_without_anything_random_it_is_the_evaluation_transform() -> None:
    recipe = train.Recipe(augment="none", crop="centre", resolution=64)
    transform = TrainingTransform(recipe, Preprocessing(crop_fraction=0.9))
    assert transform.steps is None
    assert torch.equal(transform(noise()), Preprocessing(size=64, crop_fraction=0.9)(noise()))


def test_mixing() -> None:
    assert mixing(train.Recipe(), 3) is None
    oracle("torchvision")
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    for recipe in (train.Recipe(mixup=0.8), train.Recipe(mixup=0.8, cutmix=1.0)):
        mix = mixing(recipe, 3)
        assert mix is not None
        mixed, shares = mix(images, labels)
        assert mixed.shape == images.shape
        assert not torch.equal(mixed, images)
        torch.testing.assert_close(shares.sum(1), torch.ones(4))
