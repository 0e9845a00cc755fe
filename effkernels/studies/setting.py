"""On which pictures and how the networks of a study are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from effkernels.studies.architecture import LARGEST_RESOLUTION
from effkernels.train.randomness import SPLIT, derive
from effkernels.train.recipe import Recipe
from effkernels.train.sources import ArraySource, Subset, fashion_mnist, is_fashion_mnist
from effkernels.train.splits import hold_out

HELD_OUT = 5000
"""Training pictures that select, so that the test pictures stay unseen until the end."""

QUICK = Recipe(
    epochs=1,
    optimizer="adamw",
    lr=0.03,
    lr_batch=None,
    eps=None,
    weight_decay=0.02,
    decay_biases=False,
    schedule="cosine",
    warmup_epochs=0.2,
    label_smoothing=0.05,
    ema=0.0,
    dropout=0.0,
    drop_path=0.0,
    crop="centre",
    augment="none",
    bn_momentum=0.1,
)
"""Of a training of seconds; a one-cycle schedule on whole pictures."""

# Fashion-MNIST's training pixels, from 0 to 1.
_MEAN, _STD = 0.286, 0.353


@dataclass(frozen=True)
class Setting:
    """What all trainings of a study share.

    Args:
        data: ``fashion-mnist``, or ``fashion-mnist:FOLDER``.
        pictures: to train on, of those that are not held out; the same for all seeds.
        held_out: training pictures whose accuracy counts, of every class alike.
        batch: pictures in a step.
        recipe: epochs, optimiser and schedule; its augmentation, crops and averages are not used.

    Raises:
        ValueError: too few or too many pictures, or other data.
    """

    data: str = "fashion-mnist"
    pictures: int = 4000
    held_out: int = HELD_OUT
    batch: int = 50
    recipe: Recipe = field(default=QUICK)

    def __post_init__(self) -> None:
        if not is_fashion_mnist(self.data):
            raise ValueError(
                f"data must be 'fashion-mnist' or 'fashion-mnist:FOLDER', got {self.data!r}"
            )
        for name in ("pictures", "held_out", "batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 2:
                raise ValueError(f"{name} must be a whole number of at least 2, got {value!r}")
        if self.pictures < self.batch:
            raise ValueError(f"pictures={self.pictures} are fewer than a batch of {self.batch}")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types; of the recipe what differs from the defaults. The folder of the data is left out."""
        usual = Recipe().to_json()
        recipe = {k: v for k, v in self.recipe.to_json().items() if v != usual[k]}
        data = self.data.partition(":")[0]
        shared = {k: v for k, v in asdict(self).items() if k not in ("recipe", "data")}
        return {"data": data, **shared, "recipe": recipe}


class Pictures:
    """The pictures of a setting as tensors in memory, at any resolution up to their own.

    Args:
        setting: which of them.
        source: the training pictures, by default those that ``setting.data`` names.
        test: called for the test pictures, once they are wanted.

    Raises:
        ValueError: they are missing or damaged, or fewer than the setting wants.
    """

    channels = 1

    def __init__(
        self,
        setting: Setting,
        source: ArraySource | None = None,
        test: Callable[[], ArraySource] | None = None,
    ) -> None:
        given = fashion_mnist(setting.data, "train") if source is None else source
        split = hold_out(given, setting.held_out, seed=0)
        assert isinstance(split.train, Subset)
        assert isinstance(split.validation, Subset)
        self.classes = given.classes
        free = torch.tensor(split.train.indices)
        if setting.pictures > len(free):
            raise ValueError(
                f"pictures={setting.pictures} are more than the {len(free)} that are not held out"
            )
        generator = torch.Generator().manual_seed(derive(0, SPLIT, 1))
        chosen = free[torch.randperm(len(free), generator=generator)[: setting.pictures]]
        self._train = _Part(given, chosen)
        self._held = _Part(given, torch.tensor(split.validation.indices))
        self._test: _Part | None = None
        self._open_test = test or (lambda: fashion_mnist(setting.data, "test"))

    def train(self, resolution: int) -> tuple[Tensor, Tensor]:
        """(N, 1, resolution, resolution) float32 in channels_last, normalised; and (N,) classes."""
        return self._train.at(resolution)

    def held_out(self, resolution: int) -> tuple[Tensor, Tensor]:
        """Those that select."""
        return self._held.at(resolution)

    @property
    def largest(self) -> int:
        """The largest resolution that they have."""
        return self._held.largest

    def pixels_held_out(self, resolution: int) -> Tensor:
        """Those that select, from 0 to 1 and not normalised."""
        return self._held.at(resolution)[0] * _STD + _MEAN

    def test(self, resolution: int) -> tuple[Tensor, Tensor]:
        """Those that judge what was selected."""
        if self._test is None:
            source = self._open_test()
            self._test = _Part(source, torch.arange(len(source)))
        return self._test.at(resolution)


class _Part:
    """Some pictures of a source; keeps those of the last resolutions."""

    def __init__(self, source: ArraySource, indices: Tensor) -> None:
        self._pixels = torch.from_numpy(source.pictures[indices.numpy()])[:, None]
        self._labels = torch.tensor(source.labels)[indices]
        self._made: dict[int, Tensor] = {}

    @property
    def largest(self) -> int:
        return min(LARGEST_RESOLUTION, self._pixels.shape[-1])

    def at(self, resolution: int) -> tuple[Tensor, Tensor]:
        if resolution > self.largest:
            raise ValueError(
                f"resolution must be at most {self.largest}, the pictures' own, got {resolution}"
            )
        if resolution not in self._made:
            if len(self._made) == 4:
                self._made.pop(next(iter(self._made)))
            self._made[resolution] = _resized(self._pixels, resolution)
        return self._made[resolution], self._labels


def _resized(pixels: Tensor, resolution: int) -> Tensor:
    side = pixels.shape[-1]
    images = pixels.float() / 255
    if side % resolution == 0:
        images = F.avg_pool2d(images, side // resolution)
    else:
        size = (resolution, resolution)
        images = F.interpolate(
            images, size=size, mode="bilinear", align_corners=False, antialias=True
        )
    return ((images - _MEAN) / _STD).contiguous(memory_format=torch.channels_last)
