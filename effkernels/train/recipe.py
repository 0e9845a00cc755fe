"""How to train, as data: the paper's recipe for each model, and others beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from effkernels.models import get_config

Schedule = Literal["step", "cosine", "constant"]
Augment = Literal["none", "autoaugment", "autoaugment-paper", "randaugment", "trivialaugment"]
Crop = Literal["random", "centre"]
BatchNormMode = Literal["batch", "running", "frozen"]

# Where progressive resizing begins, beside the size (Tan and Le 2021, effnetv2_configs.py).
_FIRST_MAGNITUDE, _FIRST_DROPOUT = 5, 0.1


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is learnt from given pictures, apart from seeds and the batch.

    Args:
        epochs: passes over the training pictures.
        optimizer: ``sgd`` (with Nesterov momentum), ``adamw``, or any name that timm's
            ``create_optimizer_v2`` knows, such as ``rmsproptf``: RMSProp as TensorFlow computes it.
        lr: learning rate after the warm-up.
        lr_batch: the number of pictures per step that ``lr`` is meant for; at others it is scaled in
            proportion. None: ``lr`` is meant as it is.
        momentum, eps: of the optimiser; eps None for its default.
        weight_decay: of weights of convolutions and linear layers.
        decay_biases: their biases as well, as in the authors' code. BatchNorm's are never decayed.
        schedule: of the learning rate after the warm-up: ``step`` (times ``decay_rate`` every
            ``decay_epochs``), ``cosine`` (to 0 at the end) or ``constant``.
        warmup_epochs: in which the learning rate grows from 0, linearly.
        decay_epochs, decay_rate: of the step schedule.
        label_smoothing: share of each label that all classes get.
        ema: decay per step of the averaged weights and buffers, which are what is validated and saved; less in
            the first steps: (1 + t) / (10 + t). 0 for no average.
        dropout, drop_path: None for the model's own.
        crop: ``random`` (of ``area`` to all of the picture's, mirrored at random), or ``centre``: as in evaluation.
        area: the smallest share of a random crop.
        augment: ``none``, ``autoaugment-paper`` (timm's ``v0``: what the authors trained with),
            ``autoaugment`` (the published ImageNet policy), ``randaugment`` or ``trivialaugment``.
        magnitude: of RandAugment, 0 to 30.
        mixup, cutmix: parameters of the Beta distribution; 0 for none. With both, one of them for each batch.
        erase: probability of erasing a rectangle.
        resolution: side of the images in pixels; None for the model's own.
        progressive_from: side at the beginning, which grows in ``progressive_stages`` steps, and magnitude,
            mixup, cutmix and dropout with it (Tan and Le 2021, arXiv 2104.00298, section 4). None: no such thing.
        progressive_stages: their number, of equally many epochs.
        batch_norm: ``batch``: by the statistics of each batch. ``running``: by the running statistics, which
            stay as they are. ``frozen``: weight and beta stay as they are too.
        bn_momentum: weight of a batch in the running statistics; None for the model's own, 0.01, which follows only
            over hundreds of steps.
        freeze: None: everything learns. 0: the stem does not; k: neither do the first k stages; one more than
            there are stages: only the classifier learns. Frozen parts use their running statistics.
        layer_decay: factor of the learning rate from one block to the one before it; 1 for none.
        clip: largest norm of the gradient; None for any.
        distillation: share of the loss that compares with a teacher, if there is one.
        temperature: of that comparison (Hinton et al. 2015, arXiv 1503.02531).

    Raises:
        ValueError, TypeError: a value out of range or NaN.
    """

    epochs: int = 350
    optimizer: str = "rmsproptf"
    lr: float = 0.016
    lr_batch: int | None = 256
    momentum: float = 0.9
    eps: float | None = 1e-3
    weight_decay: float = 1e-5
    decay_biases: bool = True
    schedule: Schedule = "step"
    warmup_epochs: float = 5.0
    decay_epochs: float = 2.4
    decay_rate: float = 0.97
    label_smoothing: float = 0.1
    ema: float = 0.9999
    dropout: float | None = None
    drop_path: float | None = None
    crop: Crop = "random"
    area: float = 0.08
    augment: Augment = "autoaugment-paper"
    magnitude: int = 9
    mixup: float = 0.0
    cutmix: float = 0.0
    erase: float = 0.0
    resolution: int | None = None
    progressive_from: int | None = None
    progressive_stages: int = 4
    batch_norm: BatchNormMode = "batch"
    bn_momentum: float | None = None
    freeze: int | None = None
    layer_decay: float = 1.0
    clip: float | None = None
    distillation: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("epochs", "progressive_stages"):
            _check_int(name, getattr(self, name), 1)
        for name in ("lr_batch", "resolution", "progressive_from"):
            if getattr(self, name) is not None:
                _check_int(name, getattr(self, name), 1)
        if self.freeze is not None:
            _check_int("freeze", self.freeze, 0)
        _check_int("magnitude", self.magnitude, 0, 30)
        for name in _NOT_NEGATIVE:
            _check_number(name, getattr(self, name), 0.0, math.inf)
        for name in _SHARES:
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name), 0.0, 1.0)
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not (_check_number(name, value, 0.0, math.inf) > 0):
                raise ValueError(f"{name} must be above 0, got {value}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        for name in ("dropout", "drop_path", "label_smoothing", "ema"):
            if getattr(self, name) == 1.0:
                raise ValueError(f"{name} must be below 1, got 1")

    def learning_rate(self, batch: int) -> float:
        """The rate after the warm-up for ``batch`` pictures per step, of all processes together."""
        return self.lr if self.lr_batch is None else self.lr * batch / self.lr_batch

    def factor(self, epoch: float) -> float:
        """The learning rate at a moment, over that after the warm-up; ``epoch`` counts passed ones, with fractions."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        if self.schedule == "step":
            # A small term: 2.4 epochs are not a whole number of steps, and steps / epochs is rounded.
            return float(self.decay_rate ** math.floor(epoch / self.decay_epochs + 1e-9))
        if self.schedule == "cosine":
            rest = max(self.epochs - self.warmup_epochs, 1e-9)
            done = min((epoch - self.warmup_epochs) / rest, 1.0)
            return 0.5 * (1.0 + math.cos(math.pi * done))
        return 1.0

    def at_epoch(self, epoch: int) -> Recipe:
        """The recipe of one epoch: that of its stage where training is progressive, else this one.

        ``resolution`` and ``dropout`` must be numbers then, as :func:`recipe_for` makes them.
        """
        if self.progressive_from is None:
            return self
        assert self.resolution is not None
        assert self.dropout is not None
        stage = min(epoch * self.progressive_stages // self.epochs, self.progressive_stages - 1)
        last = max(self.progressive_stages - 1, 1)
        grown = stage / last if self.progressive_stages > 1 else 1.0

        def between(first: float, final: float) -> float:
            return min(first, final) + (final - min(first, final)) * grown

        return replace(
            self,
            resolution=round(
                self.progressive_from + (self.resolution - self.progressive_from) * grown
            ),
            magnitude=round(between(_FIRST_MAGNITUDE, self.magnitude)),
            mixup=between(0.0, self.mixup),
            cutmix=between(0.0, self.cutmix),
            dropout=between(_FIRST_DROPOUT, self.dropout),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


_NOT_NEGATIVE = ("weight_decay", "warmup_epochs", "mixup", "cutmix")
_SHARES = (
    *("momentum", "label_smoothing", "ema", "dropout", "drop_path", "erase", "distillation"),
    *("decay_rate", "layer_decay", "area", "bn_momentum"),
)
_POSITIVE = (
    *("lr", "eps", "decay_epochs", "decay_rate", "layer_decay", "area", "clip", "temperature"),
)
_CHOICES = {
    "schedule": get_args(Schedule),
    "augment": get_args(Augment),
    "crop": get_args(Crop),
    "batch_norm": get_args(BatchNormMode),
}


def _check_int(name: str, value: object, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < low or (high is not None and value > high):
        upper = "" if high is None else f" and at most {high}"
        raise ValueError(f"{name} must be at least {low}{upper}, got {value}")


def _check_number(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value) or not low <= value <= high:
        bound = "finite and at least 0" if high == math.inf else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} must be {bound}, got {value}")
    return float(value)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        # Tan and Le 2019, section 5.2, with what it leaves open from the authors' code (tensorflow/tpu, main.py): the
        # rate per 256 pictures, 5 epochs of warm-up, biases decayed, eps, TensorFlow's RMSProp.
        "paper": Recipe(),
        # torchvision's references/classification for EfficientNetV2: 0.5 for 32 processes of 32 pictures.
        "sgd": Recipe(
            epochs=600,
            optimizer="sgd",
            lr=0.5,
            lr_batch=1024,
            eps=None,
            weight_decay=2e-5,
            decay_biases=False,
            schedule="cosine",
            augment="trivialaugment",
            mixup=0.2,
            cutmix=1.0,
            erase=0.1,
        ),
        "adamw": Recipe(
            epochs=300,
            optimizer="adamw",
            lr=1e-3,
            lr_batch=1024,
            eps=None,
            weight_decay=0.05,
            decay_biases=False,
            schedule="cosine",
            augment="randaugment",
            mixup=0.2,
        ),
        # Transfer in the manner of Kornblith et al. 2019 (arXiv 1805.08974), which the paper's section 5.3 follows.
        "transfer": Recipe(
            epochs=20,
            optimizer="sgd",
            lr=0.01,
            lr_batch=64,
            eps=None,
            weight_decay=1e-5,
            decay_biases=False,
            schedule="cosine",
            warmup_epochs=0.0,
            ema=0.999,
            augment="none",
            area=0.25,
            bn_momentum=0.1,
        ),
    }
)
"""Recipes by name; a model's own dropout, stochastic depth and resolution are filled in by :func:`recipe_for`."""


def recipe_for(model: str, name: str = "paper", **changes: Any) -> Recipe:
    """The recipe of a model, with ``changes``.

    The paper's is ``paper``: of B0 to B7 it differs by dropout (0.2 to 0.5) and resolution, which are the model's own.

    Args:
        model: as in :func:`effkernels.create_model`.
        name: one of :data:`RECIPES`.
        changes: fields of :class:`Recipe`.

    Raises:
        ValueError, TypeError: an unknown model, recipe or field, or a value out of range.
    """
    config = get_config(model)
    if name not in RECIPES:
        raise ValueError(f"no recipe named {name!r}: there are {', '.join(RECIPES)}")
    known = {field.name for field in fields(Recipe)}
    for change in changes:
        if change not in known:
            raise TypeError(f"a recipe has no {change!r}; it has {', '.join(sorted(known))}")
    recipe = replace(RECIPES[name], **changes)
    own: dict[str, Any] = {
        "dropout": config.dropout,
        "drop_path": config.drop_path,
        "resolution": config.resolution,
    }
    return replace(recipe, **{k: v for k, v in own.items() if getattr(recipe, k) is None})
