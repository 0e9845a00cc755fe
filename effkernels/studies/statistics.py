"""Means with their uncertainty over seeds, and the power law of error against MACs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
_Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Estimate:
    """A value, and the interval that holds 95 % of its resamples."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """As plain JSON types."""
        return {"value": self.value, "low": self.low, "high": self.high}


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error over seeds; None with fewer than two."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    return mean, float(np.std(values, ddof=1) / math.sqrt(len(values)))


def interval(resamples: Sequence[float] | _Numbers, value: float) -> Estimate:
    """``value`` with the middle 95 % of ``resamples``."""
    low, high = np.quantile(np.asarray(resamples), (0.025, 0.975))
    return Estimate(float(value), float(low), float(high))


@dataclass(frozen=True)
class PowerLaw:
    """error = coefficient * (MACs / 10^6) ^ -exponent, with the share of resamples that each interval holds: 95 %."""

    coefficient: Estimate
    exponent: Estimate

    def error(self, macs: float) -> float:
        """The error from 0 to 1 that it predicts."""
        return float(self.coefficient.value * (macs / 1e6) ** -self.exponent.value)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"coefficient": self.coefficient.to_json(), "exponent": self.exponent.to_json()}


def fit_power_law(errors: Mapping[float, Sequence[float]], seed: int = 0) -> PowerLaw:
    """Least squares in logarithms; the uncertainty from resampling the seeds at each point.

    Args:
        errors: MACs to the errors of all seeds there, each above 0.
        seed: of the resamples.

    Raises:
        ValueError: fewer than two points, or an error that is not above 0.
    """
    if len(errors) < 2:
        raise ValueError(f"a power law needs networks of at least 2 costs, got {len(errors)}")
    for macs, values in errors.items():
        if not values or min(values) <= 0 or macs <= 0:
            raise ValueError("errors and MACs must be above 0 for a power law")
    x = np.log(np.array(list(errors)) / 1e6)

    def fit(means: _Numbers) -> tuple[float, float]:
        slope, offset = np.polyfit(x, np.log(means), 1)
        return math.exp(offset), -float(slope)

    best = fit(np.array([np.mean(values) for values in errors.values()]))
    random = np.random.default_rng(seed)
    drawn = np.stack(
        [
            np.asarray(values)[random.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
            for values in errors.values()
        ],
        axis=1,
    )
    resampled = np.array([fit(means) for means in drawn])
    return PowerLaw(interval(resampled[:, 0], best[0]), interval(resampled[:, 1], best[1]))


def at_equal_macs(means: Sequence[float], ratios: Sequence[float], target: float) -> list[float]:
    """Accuracies moved to one cost along the line of all of them against the logarithm of the cost.

    Rounding gives candidates different costs; the line says what a cost is worth here. With fewer than three
    different costs there is no line, and they stay as they are.
    """
    logs = np.log2(np.asarray(ratios))
    if len(set(np.round(logs, 6))) < 3:
        return [float(mean) for mean in means]
    slope = float(np.polyfit(logs, np.asarray(means), 1)[0])
    return [
        float(mean - slope * (log - math.log2(target)))
        for mean, log in zip(means, logs, strict=True)
    ]


def shares_of_wins(
    accuracies: Mapping[str, Sequence[float]], corrections: Mapping[str, float], seed: int = 0
) -> dict[str, float]:
    """How often each is the best when the seeds are drawn again; all have the same seeds.

    Args:
        accuracies: of each seed, by name.
        corrections: added to each mean.
        seed: of the resamples.
    """
    names = list(accuracies)
    table = np.array([accuracies[name] for name in names])
    random = np.random.default_rng(seed)
    drawn = random.integers(table.shape[1], size=(RESAMPLES, table.shape[1]))
    means = table[:, drawn].mean(2) + np.array([corrections[name] for name in names])[:, None]
    wins = np.bincount(means.argmax(0), minlength=len(names)) / RESAMPLES
    return dict(zip(names, wins.tolist(), strict=True))
