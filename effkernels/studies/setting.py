"""On which pictures and how the networks of a study are trained; pictures of small networks in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from effkernels.models import EfficientNetConfig
from effkernels.studies.architecture import LARGEST_RESOLUTION
from effkernels.studies.base import SMALL, Base
from effkernels.train.randomness import SPLIT, derive
from effkernels.train.recipe import Recipe
from effkernels.train.sources import (
    FASHION_MNIST,
    ArraySource,
    FolderSource,
    Source,
    fashion_mnist,
    is_fashion_mnist,
)
from effkernels.train.splits import choose

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

FULL = Recipe(
    epochs=30,
    optimizer="adamw",
    lr=4e-3,
    lr_batch=256,
    eps=None,
    weight_decay=0.05,
    decay_biases=False,
    schedule="cosine",
    warmup_epochs=2.0,
    ema=0.0,
    area=0.35,
    augment="none",
    bn_momentum=0.1,
)
"""Of networks at full size: short for what they are, with crops at random and no further augmentation."""

FASHION_TESTED = 10_000
"""Fashion-MNIST's test pictures."""

_SIZES = 200
"""Pictures whose sizes are looked at."""
_SMALLEST_SHARE = 5

# Fashion-MNIST's training pixels, from 0 to 1.
_MEAN, _STD = 0.286, 0.353


@dataclass(frozen=True)
class Setting:
    """What all trainings of a study share.

    Args:
        data: ``fashion-mnist``, ``fashion-mnist:FOLDER``, or a folder with one folder of pictures for each class; also
            one with such folders in ``train`` and, for the one look at test pictures, in ``test`` or ``val``.
        pictures: to train on, of those that are not held out; the same for all seeds.
        held_out: training pictures whose accuracy counts, of every class alike.
        batch: pictures in a step.
        recipe: how a network learns; of the small ones epochs, optimiser and schedule.
        split_seed: of which pictures are held out and which are trained on.
        config: of the network that is scaled, on pictures at their full size; see :meth:`full`. None for the small
            one: the pictures of a folder are then cut to squares and reduced to 28 pixels, in colour.

    Raises:
        ValueError: too few or too many pictures, or other data.
    """

    data: str = "fashion-mnist"
    pictures: int = 4000
    held_out: int = HELD_OUT
    batch: int = 50
    recipe: Recipe = field(default=QUICK)
    split_seed: int = 0
    config: EfficientNetConfig | None = None

    @staticmethod
    def full(
        data: str,
        config: EfficientNetConfig,
        *,
        pictures: int | None = None,
        held_out: int | None = None,
        batch: int = 32,
        recipe: Recipe = FULL,
        split_seed: int = 0,
    ) -> Setting:
        """Of networks that see the pictures at full size.

        Args:
            data, batch, recipe, split_seed: as of the setting.
            config: of the network that is scaled.
            pictures: None for all that are not held out.
            held_out: None for a fifth, up to 5000.

        Raises:
            ValueError: as of the setting; or the pictures do not suffice, or are smaller than the network's.
        """
        probe = Setting(data, max(2, batch), 2, batch, recipe, split_seed, config)
        count = len(probe.source)
        held = min(HELD_OUT, count // _SMALLEST_SHARE) if held_out is None else held_out
        rest = count - held
        if rest < batch or held < 2:
            raise ValueError(
                f"held_out must be at least 2 and leave a batch of {batch} of the {count} training pictures, got {held}"
            )
        if pictures is not None and pictures > rest:
            raise ValueError(
                f"pictures must be at most {rest}, those that are not held out, got {pictures}"
            )
        made = replace(probe, pictures=rest if pictures is None else pictures, held_out=held)
        _ = made.base  # pictures that are too small are the next error
        return made

    def __post_init__(self) -> None:
        if not is_fashion_mnist(self.data) and not Path(self.data).is_dir():
            raise ValueError(
                f"data must be 'fashion-mnist', 'fashion-mnist:FOLDER' or a folder of classes, got {self.data!r}"
            )
        if (
            isinstance(self.split_seed, bool)
            or not isinstance(self.split_seed, int)
            or self.split_seed < 0
        ):
            raise ValueError(
                f"split_seed must be a whole number of at least 0, got {self.split_seed!r}"
            )
        for name in ("pictures", "held_out", "batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 2:
                raise ValueError(f"{name} must be a whole number of at least 2, got {value!r}")
        if self.pictures < self.batch:
            raise ValueError(f"pictures={self.pictures} are fewer than a batch of {self.batch}")

    @cached_property
    def folder(self) -> FolderSource | None:
        """The training pictures of a folder; None where the data are Fashion-MNIST.

        Raises:
            ValueError: it has fewer than two classes, or one of them is empty.
        """
        if is_fashion_mnist(self.data):
            return None
        inner = Path(self.data) / "train"
        return FolderSource(inner if inner.is_dir() else Path(self.data))

    @cached_property
    def source(self) -> ArraySource | FolderSource:
        """The pictures to train on and to hold out.

        Raises:
            ValueError: they are missing or damaged.
        """
        return self.folder or fashion_mnist(self.data, "train")

    @cached_property
    def test_source(self) -> ArraySource | FolderSource:
        """The test pictures.

        Raises:
            ValueError: they are missing or damaged.
        """
        return _test_pictures(self)

    @property
    def test_count(self) -> int:
        """How many these are."""
        return FASHION_TESTED if self.folder is None else len(self.test_source)

    @cached_property
    def base(self) -> Base:
        """What is scaled, for these pictures.

        Raises:
            ValueError: the pictures are missing, damaged, or smaller than the base's.
        """
        if self.config is None:
            if self.folder is None:
                return SMALL
            return replace(SMALL, num_classes=len(self.folder.classes), in_channels=3)
        return Base(self.config, _side(self.source), len(self.source.classes), 3)

    @cached_property
    def _data_name(self) -> str:
        return FASHION_MNIST if self.folder is None else f"folder:{self.folder.fingerprint()}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types; of the recipe what differs from the defaults.

        Where the data lie is left out: a folder is known by the names of its pictures and classes.
        """
        usual = Recipe().to_json()
        recipe = {k: v for k, v in self.recipe.to_json().items() if v != usual[k]}
        shared = {name: getattr(self, name) for name in ("pictures", "held_out", "batch")}
        split = {"split_seed": self.split_seed} if self.split_seed else {}
        size = {} if self.config is None else {"size": "full"}
        return {"data": self._data_name, **size, **shared, **split, "recipe": recipe}

    def describe(self) -> dict[str, Any]:
        """For the record of a study: :meth:`to_json`, and which base it is at full size."""
        if self.config is None:
            return self.to_json()
        base = {"name": self.config.name, "resolution": self.config.resolution}
        return {**self.to_json(), "base": base}


def epochs_of(setting: Mapping[str, Any]) -> int:
    """Of a setting as JSON, which leaves out what is usual."""
    return int(setting["recipe"].get("epochs", Recipe().epochs))


class Pictures:
    """The pictures of a setting as tensors in memory, at any resolution up to their own.

    Args:
        setting: which of them.
        source: the training pictures, by default those that ``setting.data`` names.
        test: called for the test pictures, once they are wanted.

    Raises:
        ValueError: they are missing or damaged, or fewer than the setting wants.
    """

    def __init__(
        self,
        setting: Setting,
        source: ArraySource | FolderSource | None = None,
        test: Callable[[], ArraySource | FolderSource] | None = None,
    ) -> None:
        given = source or setting.source
        seed = setting.split_seed
        held, rest = choose(given, setting.held_out, derive(seed, SPLIT), "held_out")
        self.classes = given.classes
        free = torch.tensor(rest)
        if setting.pictures > len(free):
            raise ValueError(
                f"pictures={setting.pictures} are more than the {len(free)} that are not held out"
            )
        generator = torch.Generator().manual_seed(derive(seed, SPLIT, 1))
        chosen = free[torch.randperm(len(free), generator=generator)[: setting.pictures]]
        pixels = _pixels(given, chosen.tolist())
        self.channels = pixels.shape[1]
        self._scale = _Scale.of(pixels) if isinstance(given, FolderSource) else _FASHION
        self._train = _Part(pixels, given, chosen.tolist(), self._scale)
        self._held = _Part(_pixels(given, held), given, held, self._scale)
        self._test: _Part | None = None
        self._open_test = test or (lambda: setting.test_source)

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
        return self._held.at(resolution)[0] * self._scale.std + self._scale.mean

    def test(self, resolution: int) -> tuple[Tensor, Tensor]:
        """Those that judge what was selected."""
        if self._test is None:
            source = self._open_test()
            check_classes(self.classes, source)
            every = list(range(len(source)))
            self._test = _Part(_pixels(source, every), source, every, self._scale)
        return self._test.at(resolution)


def check_classes(classes: Sequence[str], test: Source) -> None:
    """Raises ValueError if test pictures have other classes than those that are trained on."""
    if tuple(classes) != test.classes:
        raise ValueError("the test pictures have other classes than those that are trained on")


def _side(source: ArraySource | FolderSource) -> int:
    """The median of the pictures' shorter sides, of some of them; unreadable ones do not count."""
    if isinstance(source, ArraySource):
        return int(min(source.pictures.shape[1:3]))
    some = sorted({i * len(source) // _SIZES for i in range(_SIZES)})
    sides = [side for index in some if (side := _shorter_side(source.paths[index]))]
    if not sides:
        source.picture(some[0])  # raises with the reason
        raise ValueError(f"{source.folder}: no picture could be read")
    return median_low(sides)


def _shorter_side(path: Path) -> int:
    """In pixels, by the file's header; 0 if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return int(min(opened.size))
    except Exception:  # decoders may raise anything on corrupt data
        return 0


def _test_pictures(setting: Setting) -> ArraySource | FolderSource:
    if setting.folder is None:
        return fashion_mnist(setting.data, "test")
    beside = [Path(setting.data) / name for name in ("test", "val", "valid", "validation")]
    found = next((folder for folder in beside if folder.is_dir()), None)
    if found is None or setting.folder.folder == Path(setting.data):
        raise ValueError(f"no test pictures: {setting.data} has no folders 'train' and 'test'")
    return FolderSource(found)


def _pixels(source: ArraySource | FolderSource, indices: Sequence[int]) -> Tensor:
    """(N, channels, side, side) uint8; pictures of a folder as squares of the largest resolution."""
    if isinstance(source, ArraySource):
        return torch.from_numpy(source.pictures[np.array(indices)])[:, None]
    side = (LARGEST_RESOLUTION, LARGEST_RESOLUTION)
    squares = []
    from PIL.Image import Resampling

    for index in indices:
        picture = source.picture(index)
        width, height = picture.size
        left, top = (width - min(picture.size)) // 2, (height - min(picture.size)) // 2
        box = (left, top, left + min(picture.size), top + min(picture.size))
        squares.append(np.asarray(picture.resize(side, Resampling.BOX, box=box)))
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class _Scale:
    """Mean and standard deviation of pixels from 0 to 1, each (channels, 1, 1)."""

    mean: Tensor
    std: Tensor

    @staticmethod
    def of(pixels: Tensor) -> _Scale:
        share = pixels.double() / 255
        mean, std = share.mean((0, 2, 3)), share.std((0, 2, 3)).clamp(min=1 / 255)
        return _Scale(mean.float()[:, None, None], std.float()[:, None, None])


_FASHION = _Scale(torch.full((1, 1, 1), _MEAN), torch.full((1, 1, 1), _STD))


class _Part:
    """Some pictures of a source; keeps those of the last resolutions."""

    def __init__(
        self,
        pixels: Tensor,
        source: ArraySource | FolderSource,
        indices: Sequence[int],
        scale: _Scale,
    ) -> None:
        self._pixels, self._scale = pixels, scale
        self._labels = torch.tensor([source.labels[index] for index in indices])
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
            self._made[resolution] = _resized(self._pixels, resolution, self._scale)
        return self._made[resolution], self._labels


def _resized(pixels: Tensor, resolution: int, scale: _Scale) -> Tensor:
    side = pixels.shape[-1]
    images = pixels.float() / 255
    if side % resolution == 0:
        images = F.avg_pool2d(images, side // resolution)
    else:
        size = (resolution, resolution)
        images = F.interpolate(
            images, size=size, mode="bilinear", align_corners=False, antialias=True
        )
    return ((images - scale.mean) / scale.std).contiguous(memory_format=torch.channels_last)
