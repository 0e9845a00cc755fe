"""Loss and accuracy on pictures that are not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effkernels.train.loading import Batch
from effkernels.train.processes import Processes


@dataclass(frozen=True)
class Scores:
    """Mean loss (cross-entropy without label smoothing), and shares from 0 to 1 of ``pictures``.

    ``top5`` is the share whose class is among the five most likely ones, or among all if there are fewer.
    """

    loss: float
    top1: float
    top5: float
    pictures: int


class Tally:
    """Adds up the scores of batches, on the device, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """(N, num_classes) logits and (N,) labels."""
        logits = logits.float() if logits.dtype.itemsize == 2 else logits
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        self.sums += torch.stack(
            [
                F.cross_entropy(logits, labels, reduction="sum").double(),
                best[:, 0].sum().double(),
                best.sum().double(),
                torch.tensor(len(labels), dtype=torch.float64, device=logits.device),
            ]
        )

    def scores(self, processes: Processes) -> Scores:
        """Of the batches of all processes.

        Raises:
            ValueError: there were no pictures.
        """
        loss, top1, top5, count = processes.sum(self.sums.clone()).tolist()
        if not count:
            raise ValueError("none of the validation pictures could be read")
        return Scores(loss / count, top1 / count, top5 / count, int(count))


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    dtype: torch.dtype,
    processes: Processes,
    *,
    precision: Callable[[], AbstractContextManager[object]],
    watch: Callable[[Batch], None],
) -> Scores:
    """Scores of ``model``, which is in eval mode.

    Args:
        model: with logits as its result.
        batches: of this process.
        device, dtype: what images are moved to.
        processes: over which scores are added up.
        precision: the context to compute in, such as autocast.
        watch: called with each batch.
    """
    tally = Tally(device)
    for batch in batches:
        if len(batch.labels):
            images = batch.images.to(device, dtype, non_blocking=True)
            with precision():
                logits = model(images)
            tally.add(logits, batch.labels.to(device, non_blocking=True))
        watch(batch)
    return tally.scores(processes)
