"""What a training writes down for people: a table, TensorBoard's files, and a picture of the curves."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effkernels.train.extras import need

TABLE, CURVES, BOARD = "log.csv", "curves.png", "tensorboard"

Row = Mapping[str, Any]


def write_table(history: Sequence[Row], folder: Path) -> None:
    """``log.csv``: one line for each epoch, written anew and atomically."""
    if not history:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    partial = folder / f".{TABLE}.partial"
    partial.write_text(text.getvalue(), encoding="utf-8")
    os.replace(partial, folder / TABLE)


class Board:
    """TensorBoard's files of a training; what was written after the position to go on from is hidden."""

    def __init__(self, folder: Path, next_epoch: int) -> None:
        need("tensorboard", "--tensorboard")
        boards = need("torch.utils.tensorboard", "--tensorboard")
        self._writer = boards.SummaryWriter(str(folder / BOARD), purge_step=next_epoch)

    def add(self, row: Row) -> None:
        """The numbers of one epoch."""
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def draw_curves(history: Sequence[Row], path: Path) -> None:
    """Loss, accuracy and learning rate over the epochs, as a picture.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figures = need("matplotlib.figure", "a picture of the curves")
    figure = figures.Figure(figsize=(11, 3.4), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) < 30 else ""
    for axes, names, scale in (
        (loss, ("train_loss", "loss"), 1.0),
        (accuracy, ("top1", "top5"), 100.0),
        (rate, ("lr",), 1.0),
    ):
        for name in names:
            values = [scale * row[name] for row in history]
            axes.plot(epochs, values, marker=marker, markersize=3, label=_TITLES[name])
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    accuracy.set_ylabel("%")
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, dpi=110, format="png")
    os.replace(partial, path)


_TITLES = {
    "train_loss": "training loss",
    "loss": "validation loss",
    "top1": "top-1",
    "top5": "top-5",
    "lr": "learning rate",
}
