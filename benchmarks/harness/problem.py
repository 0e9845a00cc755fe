"""The same inputs, weights and float64 answer for every contestant of a case, made once and kept in files.

It is made in a process of its own, which sleeps during measurements.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from specs.tolerance import allowed_error

if TYPE_CHECKING:
    from benchmarks.cases import Case

SEED = 20190528
KEPT_IMAGES = 4

Tensors = dict[str, Any]
"""Arguments by name: tensors, structures of them, and plain values."""
_BATCHED = ("images", "x", "gate", "residual")


class Problem:
    """The file of one case: ``inputs``, by name, and for each result its exact value and the allowed error.

    A batch repeats its first few images, and only those are stored. Results are stored only for the images
    ``checked``, because float64 is slow. The kinds of result are "result" and, for a 1x1 convolution, "product":
    the matrix product alone.
    """

    def __init__(self, folder: Path, case: Case) -> None:
        self.folder = folder
        self.case = case
        self.path = folder / f"{case.key}.pt"

    def exists(self) -> bool:
        """Whether it has been made."""
        return self.path.exists()

    def save(self, inputs: Tensors, checked: list[int], answers: dict[str, Answer]) -> None:
        """Write the file atomically."""
        stored = {name: (a.exact, a.allowed) for name, a in answers.items()}
        part = self.path.with_suffix(".part")
        torch.save({"inputs": inputs, "checked": checked, "answers": stored}, part)
        part.rename(self.path)

    def load(self) -> dict[str, Any]:
        """What was passed to :meth:`save`, with answers as (exact, allowed)."""
        # Not weights_only: this run wrote the file, and arguments are named tuples of tensors.
        content: dict[str, Any] = torch.load(self.path, weights_only=False)
        return content

    def inputs(self) -> Tensors:
        """The inputs alone: all images of the batch, on the case's device and in its type."""
        device = self.case.device
        inputs: Tensors = device.put(self.load()["inputs"])
        for name in _batched(inputs):
            kept = len(inputs[name])
            if self.case.batch > kept:
                images = torch.arange(self.case.batch, device=device.kind) % kept
                inputs[name] = inputs[name][images]
        return inputs


class Answer:
    """An exact result, and the error that the tolerance rule (:mod:`specs.tolerance`) allows a contestant."""

    def __init__(self, exact: Tensor, eager: Tensor, magnitude: float, depth: int) -> None:
        self.exact = exact.cpu()
        self.allowed = allowed_error(eager, exact, magnitude=magnitude, depth=depth)


def largest_error(actual: Tensor, exact: Tensor) -> float:
    """The largest difference; infinite if a value is not finite."""
    if not torch.isfinite(actual).all():
        return math.inf
    return (actual.double() - exact).abs().max().item()


def mismatch(actual: Tensor, exact: Tensor, allowed: float) -> str | None:
    """Why ``actual`` is not the expected result; None if it is."""
    if actual.shape != exact.shape:
        return f"shape {tuple(actual.shape)}, want {tuple(exact.shape)}"
    error = largest_error(actual, exact)
    if error <= allowed:
        return None
    return f"error {error:.2e}, allowed {allowed:.2e}"


def checked_images(batch: int) -> list[int]:
    """The first, the last and one in between."""
    return sorted({0, batch // 2, batch - 1}) if batch > KEPT_IMAGES else list(range(batch))


def kept_images(batch: int) -> list[int]:
    """The stored images that the checked ones repeat."""
    return [image % KEPT_IMAGES for image in checked_images(batch)]


def checked(inputs: Tensors, case: Case) -> Tensors:
    """The checked images among the stored ones, on the case's device and in its type."""
    kept = kept_images(case.batch)
    some = {**inputs, **{name: inputs[name][kept] for name in _batched(inputs)}}
    put: Tensors = case.device.put(some)
    return put


def _batched(inputs: Tensors) -> list[str]:
    """The inputs that have one part per image."""
    return [name for name in _BATCHED if isinstance(inputs.get(name), Tensor)]
