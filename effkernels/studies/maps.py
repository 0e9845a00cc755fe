"""Class activation maps of five small networks: the base, and the base scaled in one dimension or in all three.

Source: Tan and Le 2019 (arXiv 1905.11946), Figure 7 and Table 7, whose factors are used here; the maps are those of
Zhou et al. 2016 (arXiv 1512.04150). Maps of networks for ImageNet are drawn by ``effkernels cam``, side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from effkernels.analysis.scaled_baselines import TABLE_7
from effkernels.models import EfficientNet
from effkernels.studies.grids import Triple
from effkernels.studies.report import Document, about_trainings, percent, table, with_error
from effkernels.studies.setting import Setting
from effkernels.studies.statistics import mean_and_error
from effkernels.studies.store import Trainer
from effkernels.studies.training import Training, one_thread

SHOWN = 4
"""Pictures in the figure: the first one held out of as many classes."""
MEASURED = 1000
"""Pictures held out on which the maps are measured."""
_BACKGROUND = 0.1
"""Pixels above this, of 0 to 1, are of the object: the background is black."""
_SIZE = (12.0, 8.6)
_DRAWN_SIDE = 96
"""Pixels of a picture in the record, at most."""


def five() -> dict[str, Triple]:
    """Table 7's networks as multipliers of the small base."""
    return {
        "base" if row.scaling == "none" else row.scaling: Triple(*row.factors)
        for row in TABLE_7
        if row.factors is not None
    }


def maps_study(setting: Setting, trainer: Trainer, *, seeds: int = 2) -> Document:
    """Train the five networks, map where they look, and measure how much of that is on the object.

    Args:
        setting, trainer: of the trainings.
        seeds: at least 2; maps are drawn of the first.

    Returns:
        ``models`` with accuracies and with ``object_shares``: of the positive part of the map of a picture's own
        class the share that lies on the object, the mean over pictures, for each seed. ``object_pixels`` is the share
        of the pictures that the objects cover: what a map that is even everywhere has. Both are missing for a folder
        of pictures, whose background is not black. ``pictures`` with their maps.

    Raises:
        ValueError: an argument out of range.
        OutOfTime: the trainer's time is over; the same call goes on.
    """
    if seeds < 2:
        raise ValueError(f"seeds must be at least 2, for error bars; got {seeds}")
    networks = {way: multipliers.apply(setting.base) for way, multipliers in five().items()}
    trainer.expect([Training(a, setting, seed) for seed in range(seeds) for a in networks.values()])
    seen = _Seen.of(setting, trainer)
    labels = seen.labels
    shown = _shown(labels, len(seen.classes))
    pixels = seen.pixels(shown)  # one that cannot be read is an error before trainings
    models, drawn = [], {}
    for way, multipliers in five().items():
        architecture = networks[way]
        results, shares = [], []
        for seed in range(seeds):
            result, network = trainer.network(Training(architecture, setting, seed))
            results.append(result)
            side = architecture.config.resolution
            if seen.on_object is not None:
                every = range(len(labels))
                shares.append(_share(network, seen.images(side, every), labels, seen.on_object))
            if seed == 0:
                drawn[way] = _looked(network, seen.images(side, shown), labels[shown])
        accuracies = [result["accuracy"] for result in results]
        mean, error = mean_and_error(accuracies)
        share, share_error = mean_and_error(shares) if shares else (None, None)
        models.append(
            {
                "way": way,
                "factors": [multipliers.alpha, multipliers.beta, multipliers.gamma],
                "network": architecture.to_json(),
                "macs": results[0]["macs"],
                "params": results[0]["params"],
                "accuracies": accuracies,
                "mean": mean,
                "standard_error": error,
                "object_shares": shares,
                "object_share": share,
                "object_share_error": share_error,
            }
        )
    return {
        "study": "cam",
        "setting": setting.describe(),
        "seeds": seeds,
        "measured_on": len(labels),
        "object_pixels": None if seen.on_object is None else float(seen.on_object.float().mean()),
        "models": models,
        "pictures": [
            {
                "class": seen.classes[int(labels[index])],
                "pixels": (one.mean(0) * 255).round().int().tolist(),
                "maps": {way: rows[place] for way, rows in drawn.items()},
            }
            for place, (index, one) in enumerate(zip(shown, pixels, strict=True))
        ],
        "classes": list(seen.classes),
    }


@dataclass(frozen=True)
class _Seen:
    """The pictures held out on which networks look: the first ones.

    Attributes:
        classes, labels: of them.
        images: (N, channels, side, side), by the side and indices of pictures.
        pixels: from 0 to 1, by indices.
        on_object: (N, side, side); None where the background is not black.
    """

    classes: Sequence[str]
    labels: Tensor
    images: Callable[[int, Sequence[int]], Tensor]
    pixels: Callable[[Sequence[int]], Tensor]
    on_object: Tensor | None

    @staticmethod
    def of(setting: Setting, trainer: Trainer) -> _Seen:
        if setting.config is not None:
            full = trainer.full_pictures(setting)
            labels = torch.tensor(full.data.validation.labels)
            side = min(_DRAWN_SIDE, setting.base.largest)
            return _Seen(
                full.classes, labels, full.held_out, partial(full.pixels_held_out, side), None
            )
        pictures = trainer.pictures(setting)
        pixels = pictures.pixels_held_out(pictures.largest)[:MEASURED]
        labels = pictures.held_out(pictures.largest)[1][:MEASURED]
        # Fashion-MNIST's objects lie on black; a folder's may lie on anything.
        on_object = pixels.amax(1) > _BACKGROUND if setting.folder is None else None
        return _Seen(
            pictures.classes,
            labels,
            lambda side, indices: pictures.held_out(side)[0][list(indices)],
            lambda indices: pixels[list(indices)],
            on_object,
        )


def _shown(labels: Tensor, classes: int) -> list[int]:
    wanted = sorted({round(c) for c in np.linspace(0, classes - 1, SHOWN)})
    return [
        int((labels == label).nonzero()[0]) for label in wanted if bool((labels == label).any())
    ]


@torch.no_grad()
def _share(network: EfficientNet, images: Tensor, labels: Tensor, on_object: Tensor) -> float:
    """The mean share of the positive part of a map that lies on the object; pictures without one do not count, and
    if all are it is 0."""
    with one_thread():
        found = network.cam(images, labels).relu()
    large = F.interpolate(found[:, None], on_object.shape[1:], mode="bilinear")[:, 0]
    whole = large.sum((1, 2))
    inside = (large * on_object).sum((1, 2))
    some = whole > 0
    return float((inside[some] / whole[some]).mean()) if bool(some.any()) else 0.0


@torch.no_grad()
def _looked(network: EfficientNet, images: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """For each picture the map of its own class, that class's probability, and the most likely class."""
    with one_thread():
        found = network.cam(images, labels)
        probabilities = network(images).softmax(1)
    return [
        {
            "map": one.tolist(),
            "probability": float(row[label]),
            "predicted": int(row.argmax()),
        }
        for one, row, label in zip(found, probabilities, labels, strict=True)
    ]


def _about_shares(document: Document) -> str:
    if document["object_pixels"] is None:
        return (
            "How much of a map lies on the object is measured only where the background is black."
        )
    return (
        "The last column: of the positive part of the activation map of a picture's own class, the share that lies on "
        f"the object, over {document['measured_on']} pictures held out. A map that is even everywhere would have "
        f"{percent(document['object_pixels'])} %."
    )


def page(document: Document) -> str:
    """The document as Markdown."""
    rows = [
        [
            model["way"],
            ", ".join(f"{factor:g}" for factor in model["factors"]),
            model["network"]["resolution"],
            f"{model['macs'] / document['models'][0]['macs']:.2f}x",
            f"{model['params']:,}",
            with_error(model["mean"], model["standard_error"]),
            with_error(model["object_share"], model["object_share_error"]),
        ]
        for model in document["models"]
    ]
    return "\n\n".join(
        [
            "# Where five networks look",
            f"{about_trainings(document['setting'])}, mean and standard error over {document['seeds']} seeds. "
            "Factors of depth, width and resolution are those of the paper's Table 7.",
            _about_shares(document),
            table(
                [
                    "network",
                    "factors",
                    "pixels",
                    "MACs",
                    "params",
                    "accuracy, %",
                    "map on the object, %",
                ],
                rows,
            ),
            f"![activation maps]({document['study']}.png)",
        ]
    )


def draw(document: Document, figure: Any) -> None:
    """A row for each picture: as it is, then under the maps of the five networks (the positive part, red is most)."""
    ways = [model["way"] for model in document["models"]]
    figure.set_size_inches(*_SIZE)
    grid = figure.subplots(len(document["pictures"]), len(ways) + 1, squeeze=False)
    for row, picture in zip(grid, document["pictures"], strict=True):
        pixels = np.array(picture["pixels"], np.uint8)
        side = len(pixels)
        for axes in row:
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
        row[0].set_ylabel(picture["class"])
        for axes, way in zip(row[1:], ways, strict=True):
            one = picture["maps"][way]
            axes.imshow(
                np.maximum(np.array(one["map"]), 0),
                cmap="jet",
                alpha=0.5,
                extent=(-0.5, side - 0.5, side - 0.5, -0.5),
                interpolation="bilinear",
            )
            predicted = document["classes"][one["predicted"]]
            right = predicted == picture["class"]
            said = f"{100 * one['probability']:.0f} %"
            said = said if right else f"{said}, takes it for {predicted}"
            axes.set_xlabel(said, fontsize=8, color="black" if right else "tab:red")
    grid[0][0].set_title("picture", fontsize=10)
    for axes, model in zip(grid[0][1:], document["models"], strict=True):
        height, width = np.array(document["pictures"][0]["maps"][model["way"]]["map"]).shape
        factors = ", ".join(f"{factor:g}" for factor in model["factors"])
        axes.set_title(f"{model['way']}\n({factors})\nmaps of {height} x {width}", fontsize=10)
