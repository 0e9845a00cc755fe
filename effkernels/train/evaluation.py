"""How good a trained model is: accuracy, which classes it takes for which, and how sure it is when it is right."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from effkernels.models import EfficientNet
from effkernels.train.extras import need
from effkernels.train.loading import Batch, Pictures, ValidationBatches, loader
from effkernels.train.processes import Processes
from effkernels.train.sources import Source, Subset
from effkernels.train.validation import Scores, validate

CONFUSION, CALIBRATION = "confusion.png", "calibration.png"

_WORDNET = re.compile(
    r"n\d{8}"
)  # ILSVRC's names of class folders; sorted they are in the order of its classes
_BINS = 15  # as Guo et al. 2017 (arXiv 1706.04599)
_MOST_NAMED, _MOST_COUNTED = 40, 12  # classes


@dataclass(frozen=True)
class Calibration:
    """Predictions by the probability of the predicted class, in bins of equal width.

    Attributes:
        confidence: mean probability of each bin's predictions; 0 where there are none.
        accuracy: the share of them that is right.
        count: their number.
    """

    confidence: Tensor
    accuracy: Tensor
    count: Tensor

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of confidence and accuracy (Guo et al. 2017, equation 5)."""
        apart = (self.confidence - self.accuracy).abs() * self.count
        return (apart.sum() / self.count.sum()).item()


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` finds.

    Attributes:
        scores: loss and accuracies.
        confusion: (classes, classes) counts: rows are the true class, columns the predicted one.
        calibration: of the predicted class's probabilities.
        classes: names, of rows and columns.
        problems: why pictures could not be read.
    """

    scores: Scores
    confusion: Tensor
    calibration: Calibration
    classes: tuple[str, ...]
    problems: tuple[str, ...]


def match_classes(source: Sequence[str], names: Sequence[str], *, stated: bool) -> list[int]:
    """For each class of the pictures the model's class.

    By name; ILSVRC's 1000 class folders by their order; where the model's weights state no names, as many
    folders as it has classes by their order too.

    Args:
        source: class folders, sorted.
        names: of the model's classes.
        stated: whether its weights state them.

    Raises:
        ValueError: a folder is no class of the model.
    """
    positions = {name: index for index, name in enumerate(names)}
    if all(name in positions for name in source):
        return [positions[name] for name in source]
    imagenet = len(names) == 1000 and all(_WORDNET.fullmatch(name) for name in source)
    if len(source) == len(names) and (imagenet or not (stated or len(names) == 1000)):
        return list(range(len(names)))
    unknown = [name for name in source if name not in positions]
    if imagenet:
        raise ValueError(
            f"ILSVRC's class folders are known by their order: all 1000 are needed, found {len(source)}"
        )
    raise ValueError(
        f"{len(unknown)} of {len(source)} class folders are none of the model's {len(names)} classes: "
        f"{', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}"
    )


def evaluate(
    model: EfficientNet,
    source: Source,
    classes: Sequence[int],
    names: Sequence[str],
    *,
    batch_size: int = 64,
    workers: int = 0,
    watch: Callable[[int], None] | None = None,
) -> Evaluation:
    """Evaluate a model, in eval mode, on labelled pictures prepared by its own ``preprocessing``.

    Args:
        model: on any device, in any dtype.
        source: the pictures.
        classes: the model's class for each class of the pictures; see :func:`match_classes`.
        names: of the model's classes.
        batch_size, workers: as in :class:`~effkernels.train.Job`.
        watch: called with the number of pictures of each batch.

    Raises:
        ValueError: none of the pictures can be read, or the model computes NaN.
    """
    example = next(model.parameters())
    record = _Record(model)
    problems: dict[str, None] = {}

    def watched(batch: Batch) -> None:
        problems.update(dict.fromkeys(batch.problems))
        record.labels.append(batch.labels)
        if watch is not None:
            watch(len(batch.labels) + len(batch.problems))

    pictures = Pictures(_Renumbered(source, classes), model.preprocessing, 0, replace=False)
    scores = validate(
        record,
        loader(pictures, ValidationBatches(source, batch_size), workers, example.device),
        example.device,
        example.dtype,
        Processes(),
        precision=nullcontext,
        watch=watched,
    )
    confidence, predicted = torch.cat(record.confidence), torch.cat(record.predicted)
    if not confidence.isfinite().all():
        raise ValueError("the model computes NaN: float16 may overflow, try --dtype float32")
    labels = torch.cat(record.labels)
    return Evaluation(
        scores,
        confusion_matrix(predicted, labels, len(names)),
        calibration(confidence, predicted == labels),
        tuple(names),
        tuple(problems),
    )


class _Renumbered(Subset):
    """All pictures of another source under the model's numbers of their classes."""

    def __init__(self, source: Source, numbers: Sequence[int]) -> None:
        super().__init__(source, range(len(source)))
        self.labels = [numbers[label] for label in self.labels]


class _Record(nn.Module):
    """A model that remembers what it predicted, and how sure it was."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.confidence: list[Tensor] = []
        self.predicted: list[Tensor] = []
        self.labels: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        sure, best = logits.float().softmax(1).max(1)
        self.confidence.append(sure.cpu())
        self.predicted.append(best.cpu())
        return logits


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(classes, classes) counts of (N,) predictions: rows are the true class."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, -1)


def calibration(confidence: Tensor, right: Tensor, bins: int = _BINS) -> Calibration:
    """(N,) probabilities of predicted classes, and whether these are right, in ``bins`` of equal width."""
    index = (confidence * bins).ceil().long().clamp(
        1, bins
    ) - 1  # bins are open below, as in the source
    count = torch.bincount(index, minlength=bins).double()
    sums = (
        torch.bincount(index, weights=values.double(), minlength=bins)
        for values in (confidence, right)
    )
    mean_confidence, accuracy = (total / count.clamp(min=1) for total in sums)
    return Calibration(mean_confidence, accuracy, count)


def draw_confusion(evaluation: Evaluation, path: Path) -> None:
    """The confusion matrix as a picture: each row in percent of its class.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figures = need("matplotlib.figure", "a picture of the confusion matrix")
    counts = evaluation.confusion.double()
    shares = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
    number = len(evaluation.classes)
    side = min(4.0 + 0.28 * number, 16.0)
    figure = figures.Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(shown, ax=axes, label="% of the true class")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if number <= _MOST_NAMED:
        axes.set_xticks(range(number), evaluation.classes, rotation=90)
        axes.set_yticks(range(number), evaluation.classes)
    if number <= _MOST_COUNTED:
        for row in range(number):
            for column in range(number):
                value = shares[row, column].item()
                colour = "white" if value > 50 else "black"
                axes.text(
                    column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8
                )
    figure.savefig(path, dpi=110)


def draw_calibration(evaluation: Evaluation, path: Path) -> None:
    """Accuracy over confidence as a picture, above how many predictions have which confidence.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figures = need("matplotlib.figure", "a picture of the calibration")
    found = evaluation.calibration
    bins = len(found.count)
    figure = figures.Figure(figsize=(5, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    middles = [(index + 0.5) / bins for index in range(bins)]
    above.bar(middles, found.accuracy.tolist(), 1 / bins, edgecolor="white", label="accuracy")
    above.plot([0, 1], [0, 1], "k--", linewidth=1, label="as sure as right")
    above.set_ylabel("share that is right")
    above.set_title(f"expected calibration error {100 * found.error:.1f} %")
    above.legend(loc="upper left")
    below.bar(middles, (found.count / found.count.sum()).tolist(), 1 / bins, edgecolor="white")
    below.set_xlabel("probability of the predicted class")
    below.set_ylabel("share of pictures")
    figure.savefig(path, dpi=110)
