"""What happens to pictures before the network sees them, put together from torchvision's and timm's transforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from effkernels.preprocessing import Preprocessing
from effkernels.train.extras import need
from effkernels.train.recipe import Recipe

if TYPE_CHECKING:
    from PIL import Image

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_LOWEST_ERASED, _HIGHEST_ERASED = 0.02, 1 / 3
_RATIO = (3 / 4, 4 / 3)


class TrainingTransform:
    """A picture, RGB, to a normalised (3, side, side) tensor by a recipe's crop, augmentation and erasing.

    Raises:
        ImportError: a package that the recipe needs.
    """

    def __init__(self, recipe: Recipe, preprocessing: Preprocessing) -> None:
        side = recipe.resolution or preprocessing.size
        self.preprocessing = replace(preprocessing, size=side)
        plain = recipe.crop == "centre" and recipe.augment == "none" and not recipe.erase
        # Without random numbers it is what evaluation does, and needs no torchvision.
        self.steps = None if plain else self._steps(recipe, side)

    def _steps(self, recipe: Recipe, side: int) -> Any:
        v2 = need("torchvision.transforms.v2", "augmentation")
        own = self.preprocessing
        interpolation = v2.InterpolationMode(own.interpolation)
        if recipe.crop == "random":
            steps = [
                v2.RandomResizedCrop(
                    side, scale=(recipe.area, 1.0), ratio=_RATIO, interpolation=interpolation
                ),
                v2.RandomHorizontalFlip(),
            ]
        else:
            steps = [
                v2.Resize(own.resized, interpolation=interpolation),
                v2.CenterCrop(side),
            ]
        if recipe.augment == "autoaugment-paper":
            steps.append(_timm_policy("v0", own, side))
        elif recipe.augment == "autoaugment":
            steps.append(v2.AutoAugment(interpolation=v2.InterpolationMode.BILINEAR))
        elif recipe.augment == "randaugment":
            steps.append(v2.RandAugment(magnitude=recipe.magnitude))
        elif recipe.augment == "trivialaugment":
            steps.append(v2.TrivialAugmentWide())
        steps += [
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(own.mean), list(own.std)),
        ]
        if recipe.erase:
            area = (_LOWEST_ERASED, _HIGHEST_ERASED)
            steps.append(v2.RandomErasing(recipe.erase, scale=area))
        return v2.Compose(steps)

    def __call__(self, picture: Image.Image) -> Tensor:
        """(3, side, side) float32."""
        image: Tensor = self.preprocessing(picture) if self.steps is None else self.steps(picture)
        return image


def _timm_policy(name: str, preprocessing: Preprocessing, side: int) -> Any:
    augment = need("timm.data.auto_augment", "AutoAugment as the paper's authors have it")
    filled = tuple(round(255 * value) for value in preprocessing.mean)
    # As in timm's own transforms: what moves, moves by at most 0.45 of the side.
    return augment.auto_augment_transform(
        name, {"translate_const": int(side * 0.45), "img_mean": filled}
    )


def mixing(recipe: Recipe, num_classes: int) -> Mix | None:
    """Mixup and CutMix by a recipe: (images, labels) to mixed images and (N, num_classes) probabilities.

    None where the recipe mixes nothing. Label smoothing is the loss's business.
    """
    if not recipe.mixup and not recipe.cutmix:
        return None
    v2 = need("torchvision.transforms.v2", "mixup and cutmix")
    choices = [
        make(alpha=alpha, num_classes=num_classes)
        for make, alpha in ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix))
        if alpha
    ]
    mix: Mix = choices[0] if len(choices) == 1 else v2.RandomChoice(choices)
    return mix


def training_loss(
    logits: Tensor, targets: Tensor, recipe: Recipe, teacher: Tensor | None = None
) -> Tensor:
    """The mean loss of a batch.

    Args:
        logits: (N, num_classes).
        targets: (N,) classes, or (N, num_classes) probabilities of mixed images.
        recipe: label smoothing, and the share and temperature of distillation.
        teacher: the teacher's logits, (N, num_classes); None without one.
    """
    logits = logits.float() if logits.dtype.itemsize == 2 else logits
    if targets.is_floating_point():
        targets = targets.to(logits.dtype)
    loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
    if teacher is None:
        return loss
    warm = recipe.temperature
    told = F.log_softmax(teacher.to(logits.dtype) / warm, 1)
    said = F.log_softmax(logits / warm, 1)
    # Times the squared temperature, so that gradients keep their size (Hinton et al. 2015, section 2).
    apart = F.kl_div(said, told, reduction="batchmean", log_target=True) * warm**2
    return (1 - recipe.distillation) * loss + recipe.distillation * apart
