"""Equation 2 of the paper: the largest compound scale within a budget.

Tan and Le 2019 (arXiv 1905.11946), section 3.1: maximise accuracy subject to memory and FLOPs.
Along equation 3 accuracy rises with phi, so the answer is the largest phi that fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

import torch

from effkernels.analysis.cost import Execution, ModelCost, model_cost, resolve_config
from effkernels.analysis.memory import inference_memory, training_memory
from effkernels.models import EfficientNetConfig
from effkernels.models.scaling import (
    ALPHA,
    BETA,
    GAMMA,
    CompoundScale,
    check_count,
    check_number,
    unwarned_scale,
    warn_of_constraint,
)

_LARGEST_PHI = 1000.0  # 2^phi and every size still fit into a float
# Depth multiplier; reached at phi 38 with the paper's alpha, where MACs are over 2^38 times B0's.
_DEEPEST = 1024.0


@dataclass(frozen=True)
class BudgetFit:
    """The largest phi within a budget, and the resulting network; returned by :func:`fit_budget`.

    Sizes are rounded, so costs rise in steps. ``phi`` is the last float of its step: ``next_phi``,
    the next larger float, no longer fits, and ``limited_by`` names the budgets that it exceeds.
    ``cost`` is for one image. ``memory`` is in bytes, for the batch.
    """

    phi: float
    next_phi: float
    limited_by: tuple[str, ...]
    scale: CompoundScale
    config: EfficientNetConfig = field(repr=False)
    cost: ModelCost
    memory: int


def scaled_config(
    scale: CompoundScale, base: str | EfficientNetConfig = "efficientnet_b0"
) -> EfficientNetConfig:
    """``base`` with depth and width multiplied by the factors of ``scale``, at the resolution of ``scale``.

    The resolution of ``scale`` begins at its own ``base_resolution``; :func:`scale_model` begins at that of ``base``.
    """
    return resolve_config(base).compound(scale)


def realised_ratio(
    model: str | EfficientNetConfig | CompoundScale,
    base: str | EfficientNetConfig = "efficientnet_b0",
) -> float:
    """MACs of ``model`` over those of ``base``, each at its own resolution.

    Compare it with :attr:`CompoundScale.nominal_ratio`: because of rounding, phi 1 costs 2.57 times
    B0, and B7 98 times. A :class:`CompoundScale` is applied to ``base``.
    """
    if isinstance(model, CompoundScale):
        model = scaled_config(model, base)
    return model_cost(model).macs / model_cost(base).macs


@dataclass(frozen=True)
class Scaled:
    """A base network scaled by the compound formula; returned by :func:`scale_model`.

    ``cost`` and ``base_cost`` are for one image, each at its own resolution.
    """

    base: EfficientNetConfig = field(repr=False)
    scale: CompoundScale
    config: EfficientNetConfig = field(repr=False)
    base_cost: ModelCost
    cost: ModelCost

    @property
    def nominal_ratio(self) -> float:
        """(alpha * beta^2 * gamma^2)^phi: the growth of MACs if no size had to be rounded."""
        return math.pow(self.scale.constraint, self.scale.phi)

    @property
    def realised_ratio(self) -> float:
        """The growth of MACs of the networks as they are."""
        return self.cost.macs / self.base_cost.macs


def scale_model(
    base: str | EfficientNetConfig = "efficientnet_b0",
    *,
    phi: float,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    resolution_divisor: int = 1,
) -> Scaled:
    """Apply a triple alpha, beta, gamma to any base network at any phi (step 2 of section 3.3).

    Args:
        base: the network at phi 0, from whose depth, width and resolution growth begins.
        phi, alpha, beta, gamma, resolution_divisor: as in :func:`compound_scale`.

    Raises:
        TypeError, ValueError: as :func:`compound_scale` and :func:`model_cost`.

    Warns:
        UserWarning: alpha * beta^2 * gamma^2 is not about 2, as in :func:`compound_scale`.
    """
    network = resolve_config(base)
    scale = unwarned_scale(
        phi,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        base_resolution=network.resolution,
        resolution_divisor=resolution_divisor,
    )
    warn_of_constraint(scale, stacklevel=3)
    config = scaled_config(scale, network)
    return Scaled(network, scale, config, model_cost(network), model_cost(config))


def fit_budget(
    max_macs: float | None = None,
    max_params: float | None = None,
    max_memory: float | None = None,
    batch_size: int = 1,
    *,
    training: bool = False,
    execution: Execution = "eager",
    dtype: torch.dtype | str = torch.float32,
    base: str | EfficientNetConfig = "efficientnet_b0",
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    resolution_divisor: int = 1,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> BudgetFit:
    """Find the largest phi whose network stays within every budget given (equation 2).

    No rounded size falls as phi grows, and no cost falls as a size grows. So every phi below the
    answer fits, every phi above it exceeds a budget, and a larger budget never gives a smaller
    phi. The search bisects down to neighbouring floats, so the answer is exact.

    Args:
        max_macs: multiply-accumulates for one image.
        max_params: trainable parameters.
        max_memory: bytes for a batch of ``batch_size``, as estimated by
            :func:`~effkernels.scaling.inference_memory`, or by
            :func:`~effkernels.scaling.training_memory` with ``training``.
        batch_size: images at once; only memory depends on it.
        training: whether ``max_memory`` is for a training step (of PyTorch's own layers).
        execution: the execution whose inference memory counts; ``"eager"`` needs most, so it holds
            for every backend.
        dtype: of weights and activations; only memory depends on it.
        base: the network at phi 0.
        alpha, beta, gamma: growth of depth, width and resolution per unit of phi.
        resolution_divisor: round the resolution to a multiple of this.
        num_classes, in_channels: as in ``create_model``.

    Raises:
        ValueError: no budget is given; one is negative, or below what phi 0 needs (the message says
            how much that is), or larger than any network within the limits of the search.
        TypeError: an argument of the wrong type.

    Warns:
        UserWarning: alpha * beta^2 * gamma^2 is not about 2, as in :func:`compound_scale`.
    """
    given = {"max_macs": max_macs, "max_params": max_params, "max_memory": max_memory}
    budget = {
        name: check_number(name, value, minimum=0.0)
        for name, value in given.items()
        if value is not None
    }
    if not budget:
        raise ValueError("no budget given: pass max_macs, max_params or max_memory")
    check_count("batch_size", batch_size)
    if execution not in get_args(Execution):
        raise ValueError(f"execution must be 'eager', 'level1' or 'level2', got {execution!r}")
    network = resolve_config(base)

    def scale_at(phi: float) -> CompoundScale:
        return unwarned_scale(
            phi,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            base_resolution=network.resolution,
            resolution_divisor=resolution_divisor,
        )

    def cost_at(phi: float, images: int = 1) -> ModelCost:
        return model_cost(
            scaled_config(scale_at(phi), network),
            batch_size=images,
            dtype=dtype,
            num_classes=num_classes,
            in_channels=in_channels,
        )

    def memory_at(phi: float) -> int:
        cost = cost_at(phi, batch_size)
        return training_memory(cost) if training else inference_memory(cost).of(execution)

    needs: dict[str, Callable[[float], int]] = {
        "max_macs": lambda phi: cost_at(phi).macs,
        "max_params": lambda phi: cost_at(phi).params,
        "max_memory": memory_at,
    }

    def broken(phi: float) -> dict[str, int]:
        """The budgets that ``phi`` exceeds, and how much of each it needs."""
        found = {name: needs[name](phi) for name in budget}
        return {name: need for name, need in found.items() if need > budget[name]}

    warn_of_constraint(scale_at(0.0), stacklevel=3)
    if too_small := broken(0.0):
        listed = "; ".join(
            f"{name}={budget[name]:.15g} is below the minimum of {need}, which phi=0 needs"
            for name, need in too_small.items()
        )
        raise ValueError(listed)
    phi, next_phi = _boundary(lambda phi: not broken(phi), _largest_phi(alpha))
    return BudgetFit(
        phi=phi,
        next_phi=next_phi,
        limited_by=tuple(broken(next_phi)),
        scale=scale_at(phi),
        config=scaled_config(scale_at(phi), network),
        cost=cost_at(phi),
        memory=memory_at(phi),
    )


def _largest_phi(alpha: float) -> float:
    """The largest phi that is searched: beyond it networks would have millions of blocks to count."""
    return _LARGEST_PHI if alpha == 1.0 else min(_LARGEST_PHI, math.log(_DEEPEST, alpha))


def _boundary(fits: Callable[[float], bool], largest: float) -> tuple[float, float]:
    """Neighbouring floats, of which the first fits and the second does not. 0 must fit.

    Raises:
        ValueError: even ``largest`` fits.
    """
    low, high = 0.0, min(1.0, largest)
    while fits(high):
        if high == largest:
            raise ValueError(
                f"the budget is not used up even at phi={largest:.4g}, where the search ends: "
                "pass a smaller budget, or larger growth factors alpha, beta or gamma"
            )
        low, high = high, min(2.0 * high, largest)
    while (middle := low + (high - low) / 2) not in (low, high):
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, high
