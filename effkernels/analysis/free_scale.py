"""Equation 2 of the paper with depth, width and resolution free: the most accurate network within a budget.

Tan and Le 2019 (arXiv 1905.11946), section 3.1. Accuracy is that of :mod:`effkernels.analysis.power_law`; costs are
exact. :func:`~effkernels.scaling.fit_budget` solves the same along the compound formula alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import torch

from effkernels.analysis.budget import BudgetFit, fit_budget
from effkernels.analysis.cost import ModelCost, model_cost, resolve_config
from effkernels.analysis.memory import inference_memory
from effkernels.analysis.power_law import PowerLaw, fitted_law
from effkernels.models.config import EFFICIENTNET_STAGES, EfficientNetConfig
from effkernels.models.scaling import BASE_RESOLUTION, check_count, check_number

_LARGEST_PHI = 10.0  # of the compound scale at which the search begins
_MOST_DEPTH, _MOST_WIDTH, _MOST_RESOLUTION = 32.0, 16.0, 16.0  # factors
_WIDTH_STEPS = (1 / 4, 1 / 16, 1 / 64)
_DEPTH_STEPS = (1, 3)  # places in the list of depths
# Sides of maps are rounded up, and gates cost the same for any image: MACs may grow more slowly than pixels.
_SLACK = 1.02


@dataclass(frozen=True)
class FreeFit:
    """The most accurate network within a budget; returned by :func:`fit_free`.

    Attributes:
        depth, width, resolution: factors of the base's own.
        config: the network.
        cost: for one image.
        memory: bytes for the batch.
        accuracy: predicted top-1 on ImageNet in percent; None for a base whose accuracies are not those of the law.
        extrapolated: whether a factor, relative to EfficientNet-B0, is beyond those that the law was fitted to.
        compound: the largest compound scale within the same budget, with the paper's triple.
        compound_accuracy: what is predicted for it, as for ``accuracy``.
        law: by which accuracy was predicted.
    """

    depth: float
    width: float
    resolution: float
    config: EfficientNetConfig = field(repr=False)
    cost: ModelCost
    memory: int
    accuracy: float | None
    extrapolated: bool
    compound: BudgetFit
    compound_accuracy: float | None
    law: PowerLaw = field(repr=False)


def fit_free(
    max_macs: float | None = None,
    max_memory: float | None = None,
    *,
    batch_size: int = 1,
    dtype: torch.dtype | str = torch.float32,
    base: str | EfficientNetConfig = "efficientnet_b0",
) -> FreeFit:
    """Find factors of depth, width and resolution, each at least 1, of the largest accuracy within a budget.

    The law orders networks by how they are scaled, for every base; it was fitted to EfficientNet-B0 scaled in one
    dimension and in all three, and predicts accuracies in percent for EfficientNets alone. Depths are those at which
    another block is due; widths are searched in steps of 1/64; the resolution is the largest number of pixels that
    fits, which costs nothing in accuracy because both grow together. The search climbs from the compound scale that
    :func:`fit_budget` finds, so it never returns a network that is worse by the law.

    Args:
        max_macs: multiply-accumulates for one image.
        max_memory: bytes for a batch of ``batch_size``, as :func:`~effkernels.scaling.inference_memory` estimates them
            for ``eager``, the execution that needs most.
        batch_size: images at once; only memory depends on it.
        dtype: of weights and activations; only memory depends on it.
        base: the network that is scaled, with its own depth, width and resolution.

    Raises:
        ValueError: no budget; one below what the base needs (the message says how much), or beyond phi 10.
        TypeError: an argument of the wrong type.
    """
    check_count("batch_size", batch_size)
    network = resolve_config(base)
    budget = {
        name: check_number(name, value, minimum=0.0)
        for name, value in (("max_macs", max_macs), ("max_memory", max_memory))
        if value is not None
    }
    if not budget:
        raise ValueError("no budget given: pass max_macs or max_memory")
    compound = fit_budget(
        max_macs, max_memory=max_memory, batch_size=batch_size, dtype=dtype, base=network
    )
    if compound.phi > _LARGEST_PHI:
        raise ValueError(
            f"the budget allows phi={compound.phi:.3g}, and the search ends at {_LARGEST_PHI:g}: pass a smaller one"
        )
    search = _Search(network, budget, batch_size, dtype)
    depth, width, side = search.climb(compound)
    config = search.config(depth, width, side)
    law, own = search.law, network.coefficients
    # The law is of factors relative to B0.
    factors = own.depth * depth, own.width * width, side / BASE_RESOLUTION
    compounded = compound.config.coefficients
    at_compound = compounded.depth, compounded.width, compounded.resolution / BASE_RESOLUTION
    known = network.stages == EFFICIENTNET_STAGES and network.activation == "silu"
    return FreeFit(
        depth=depth,
        width=width,
        resolution=side / network.resolution,
        config=config,
        cost=model_cost(config),
        memory=search.memory(depth, width, side),
        accuracy=law.accuracy(*factors) if known else None,
        extrapolated=any(f > most for f, most in zip(factors, (4.0, 2.0, 600 / 224), strict=True)),
        compound=compound,
        compound_accuracy=law.accuracy(*at_compound) if known else None,
        law=law,
    )


class _Search:
    """Climbs in depth and width; the resolution is always the largest that fits."""

    def __init__(
        self,
        base: EfficientNetConfig,
        budget: dict[str, float],
        batch_size: int,
        dtype: torch.dtype | str,
    ) -> None:
        self.base = base
        self.budget = budget
        self.batch_size = batch_size
        self.dtype = dtype
        self.law = fitted_law()
        self.depths = _depths(base)
        self._cost = lru_cache(maxsize=None)(self._count)

    def config(self, depth: float, width: float, side: int) -> EfficientNetConfig:
        """The base with these factors, for images of ``side`` pixels."""
        factors = {"depth": depth, "width": width, "resolution": side / self.base.resolution}
        return self.base.scale(**factors)  # type: ignore[arg-type]

    def memory(self, depth: float, width: float, side: int) -> int:
        """Bytes for the batch."""
        return self._cost(depth, width, side)[1]

    def _count(self, depth: float, width: float, side: int) -> tuple[int, int]:
        """MACs of one image, bytes of the batch."""
        cost = model_cost(
            self.config(depth, width, side), batch_size=self.batch_size, dtype=self.dtype
        )
        return cost.macs // self.batch_size, inference_memory(cost).eager

    def _fits(self, depth: float, width: float, side: int) -> bool:
        macs, memory = self._cost(depth, width, side)
        budget = self.budget
        return macs <= budget.get("max_macs", math.inf) and memory <= budget.get(
            "max_memory", math.inf
        )

    def climb(self, start: BudgetFit) -> tuple[float, float, int]:
        """Depth, width and side that no neighbour improves upon, beginning at a compound scale."""
        depth = max(d for d in self.depths if d <= start.scale.depth * (1 + 1e-9))
        best = self._place(depth, start.scale.width, start.scale.resolution)
        improved = True
        while improved:
            improved = False
            for depth, width in list(self._neighbours(*best[1:3])):
                if self._bound(depth, width) <= best[0]:
                    continue
                side = self._largest_side(depth, width)
                if side is not None and (found := self._place(depth, width, side))[0] > best[0]:
                    best, improved = found, True
        return best[1:]

    def _place(self, depth: float, width: float, side: int) -> tuple[float, float, float, int]:
        own = self.base.coefficients
        size = self.law.size(own.depth * depth, own.width * width, side / BASE_RESOLUTION)
        return size, depth, width, side

    def _neighbours(self, depth: float, width: float) -> Iterator[tuple[float, float]]:
        at = self.depths.index(depth)
        places = {at, *(at + sign * step for step in _DEPTH_STEPS for sign in (1, -1))}
        places = {place for place in places if 0 <= place < len(self.depths)}
        widths = {width, *(width + sign * step for step in _WIDTH_STEPS for sign in (1, -1))}
        widths = {min(max(1.0, w), _MOST_WIDTH) for w in widths}
        for place in sorted(places):
            for near in sorted(widths):
                if (self.depths[place], near) != (depth, width):
                    yield self.depths[place], near

    def _bound(self, depth: float, width: float) -> float:
        """What the law can give at most at this depth and width."""
        own = self.base.coefficients
        most = self.base.resolution * _MOST_RESOLUTION
        if not self._fits(depth, width, self.base.resolution):
            return 0.0
        if "max_macs" in self.budget:
            macs = self._cost(depth, width, self.base.resolution)[0]
            grows = math.sqrt(self.budget["max_macs"] / macs) * _SLACK
            most = min(most, self.base.resolution * grows + 1)
        return self.law.size(own.depth * depth, own.width * width, most / BASE_RESOLUTION)

    def _largest_side(self, depth: float, width: float) -> int | None:
        low = self.base.resolution
        if not self._fits(depth, width, low):
            return None
        needed = dict(zip(("max_macs", "max_memory"), self._cost(depth, width, low), strict=True))
        grows = min(math.sqrt(limit / needed[name]) for name, limit in self.budget.items())
        near = math.floor(low * min(grows, _MOST_RESOLUTION) * 0.97)
        if near > low and self._fits(depth, width, near):
            low = near
        high, most = low, math.floor(self.base.resolution * _MOST_RESOLUTION)
        while high < most and self._fits(depth, width, min(most, high + max(1, high // 8))):
            low = high = min(most, high + max(1, high // 8))
        high = min(most, high + max(1, high // 8)) + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(depth, width, middle) else (low, middle)
        return low


def _depths(base: EfficientNetConfig) -> list[float]:
    """Factors of depth from 1 on, each the largest before some stage has another block."""
    own = base.coefficients.depth
    found = {1.0}
    for repeats in {stage.repeats for stage in base.stages}:
        blocks = math.floor(repeats * own) + 1
        while blocks / (repeats * own) <= _MOST_DEPTH:
            found.add(blocks / (repeats * own))
            blocks += 1
    return sorted(found)
