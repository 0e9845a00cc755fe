"""One training, described: which model learns what from which pictures, where it runs, and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from effkernels.models import EfficientNetConfig
from effkernels.models.config_file import config_to_json
from effkernels.train.recipe import Recipe
from effkernels.train.splits import Data

Precision = Literal["float32", "bfloat16", "float16", "float64"]


@dataclass(frozen=True)
class Job:
    """Arguments of :func:`run`.

    Args:
        model: a name, as in :func:`effkernels.create_model`; or a configuration.
        data: a folder with ``train`` and ``val``, or of classes; ``fashion-mnist``,
            ``datasets:PLACE``, or shards: ``train-{000..099}.tar``. See :func:`open_data`. Or what that returns.
        output: folder for weights, state and logs.
        recipe: what decides how it learns; from :func:`recipe_for`.
        validation, holdout: the pictures to validate with; see :func:`open_data`.
        subset: how many of the training pictures to train on; see :func:`open_data`.
        batch_size: pictures of one process at a time.
        accumulate: batches of each step, whose gradients are averaged.
        precision: ``float32``; ``bfloat16`` or ``float16`` for autocast; ``float64``.
        weights, source, use_ema: what to start from, as in ``create_model``; None for random weights.
        width, depth: factors of the model's.
        teacher: to distil from: a model's name (with its ImageNet weights) or a checkpoint file.
        seed: of all random numbers.
        workers: processes that read pictures, for each process that trains; 0 to read them there.
        device: a torch device.
        sync_bn: BatchNorm over the batches of all processes. PyTorch's needs GPUs.
        save_every: steps between two savings; None to save after each epoch.
        bad_pictures: unreadable pictures that are skipped before the training stops.
        resume: go on from what ``output`` holds; from the beginning where it holds nothing.
        curves: draw them at the end, if matplotlib is there.
        tensorboard: write its files as well.
        check_memory: refuse a batch that does not fit, before the first step.

    Raises:
        ValueError: a value out of range.
    """

    model: str | EfficientNetConfig
    data: str | Data
    output: Path
    recipe: Recipe
    validation: str | None = None
    holdout: float | None = None
    subset: float | None = None
    batch_size: int = 64
    accumulate: int = 1
    precision: Precision = "float32"
    weights: str | None = None
    source: str | None = None
    use_ema: bool | None = None
    width: float = 1.0
    depth: float = 1.0
    teacher: str | None = None
    seed: int = 0
    workers: int = 0
    device: torch.device | str = "cpu"
    sync_bn: bool = False
    save_every: int | None = None
    bad_pictures: int = 100
    resume: bool = False
    curves: bool = True
    tensorboard: bool = False
    check_memory: bool = True

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("accumulate", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name, least in (("bad_pictures", 0), ("seed", 0), ("save_every", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2^63, got {self.seed}")
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}"
            )
        if self.sync_bn and torch.device(self.device).type == "cpu":
            raise ValueError(
                "--sync-bn needs GPUs: PyTorch's SyncBatchNorm does not train on a CPU"
            )

    @property
    def dtype(self) -> torch.dtype:
        """Of parameters and images."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def activations(self) -> torch.dtype:
        """Of most feature maps."""
        found: torch.dtype = getattr(torch, self.precision)
        return found

    def deciding(self, world: int, pictures: Mapping[str, str]) -> dict[str, Any]:
        """The arguments that decide what is learnt, as JSON types: a training goes on only with the same.

        Args:
            world: number of processes.
            pictures: fingerprints of the pictures, by use.
        """
        names = (
            *("model", "width", "depth", "batch_size", "accumulate", "precision", "weights"),
            *("source", "use_ema", "teacher", "seed", "sync_bn"),
        )
        own = {name: getattr(self, name) for name in names}
        if isinstance(self.model, EfficientNetConfig):
            own["model"] = config_to_json(self.model)
        return {**own, **self.recipe.to_json(), "processes": world, **pictures}
