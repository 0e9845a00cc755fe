"""A power law of accuracy against depth, width and resolution, fitted to the paper's published accuracies.

The error in percent is taken as ``floor + scale * ((d^-p + w^-2p + r^-2p) / 3)^(q / p)``, with depth ``d``, width ``w``
and resolution ``r`` as multiples of EfficientNet-B0's. ``d``, ``w^2`` and ``r^2`` are what each dimension does to the
MACs. Along ``d = w^2 = r^2 = t`` what is left above the floor is a power law, ``scale * t^-q``; apart from it the
dimension that lags behind holds the others back, the more so the larger ``p`` (a sum of powers without that would send
the whole budget into one dimension).

Data: the thirteen rows of Tan and Le 2019 (arXiv 1905.11946v5) that state all three factors: B0 to B7 of Table 2, at
their own coefficients, and the five models of Table 7, B0 scaled by depth, width or resolution alone and by all three.
Fit: the four constants by least squares in percentage points, ``floor`` and ``p`` by a grid that is refined, ``scale``
and ``q`` for each of its points by linear regression of the error's logarithm. Giving each dimension a share of its own
instead of a third explains no more than two more constants would by chance (F = 0.4 on 2 and 7 degrees of freedom).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from effkernels.analysis.paper import TABLE_2
from effkernels.analysis.scaled_baselines import TABLE_7
from effkernels.models.scaling import BASE_RESOLUTION
from effkernels.models.variants import NAMED

_LEAST_ABOVE_FLOOR = 0.05  # of the smallest error, in percentage points
_LARGEST_P = 20.0
_GRID, _ROUNDS = 41, 8


@dataclass(frozen=True)
class PowerLaw:
    """The fitted law; see the module's text.

    Attributes:
        floor: error in percent that no size takes away.
        scale: error of B0 above it.
        q: exponent along ``d = w^2 = r^2``.
        p: how much the dimension that lags behind decides.
        residuals: published minus fitted accuracy of each row, in percentage points.
    """

    floor: float
    scale: float
    q: float
    p: float
    residuals: tuple[float, ...]

    @property
    def rms(self) -> float:
        """Root of the mean square of the residuals."""
        return math.sqrt(sum(r * r for r in self.residuals) / len(self.residuals))

    def size(self, depth: float, width: float, resolution: float) -> float:
        """The one number on which accuracy depends: 1 for B0, ``t`` for ``d = w^2 = r^2 = t``."""
        p = self.p
        mean = (depth**-p + width ** (-2 * p) + resolution ** (-2 * p)) / 3
        return math.pow(mean, -1 / p)

    def accuracy(self, depth: float, width: float, resolution: float) -> float:
        """Predicted top-1 accuracy on ImageNet in percent, of factors relative to B0, each above 0."""
        left = math.pow(self.size(depth, width, resolution), -self.q)
        return 100 - self.floor - self.scale * left


def published_rows() -> list[tuple[float, float, float, float]]:
    """Depth, width and resolution relative to B0, and accuracy in percent, of the rows that are fitted."""
    rows = []
    for row in TABLE_2:
        if row.is_efficientnet:
            own = NAMED[row.group]
            rows.append((own.depth, own.width, own.resolution / BASE_RESOLUTION, row.top1))
    return rows + [(*row.factors, row.top1) for row in TABLE_7 if row.factors is not None]


@cache
def fitted_law() -> PowerLaw:
    """The law fitted to :func:`published_rows`."""
    return fit(published_rows())


def fit(rows: list[tuple[float, float, float, float]]) -> PowerLaw:
    """Fit the law to rows of depth, width and resolution relative to a base, and accuracy in percent."""
    depth, width, side, top1 = np.array(rows, dtype=np.float64).T
    error = 100.0 - top1
    highest = error.min() - _LEAST_ABOVE_FLOOR
    floors, powers = (0.0, highest), (math.log(0.05), math.log(_LARGEST_P))
    best, least = PowerLaw(0.0, 1.0, 1.0, 1.0, ()), math.inf
    for _ in range(_ROUNDS):
        floor, log_p = np.meshgrid(np.linspace(*floors, _GRID), np.linspace(*powers, _GRID))
        floor, p = floor.reshape(-1, 1), np.exp(log_p).reshape(-1, 1)
        mean = (depth**-p + width ** (-2 * p) + side ** (-2 * p)) / 3
        x = np.log(mean) / p  # minus the logarithm of the size
        y = np.log(error - floor)
        from_mean = x - x.mean(1, keepdims=True)
        q = (from_mean * y).sum(1, keepdims=True) / (from_mean**2).sum(1, keepdims=True)
        scale = np.exp(y.mean(1, keepdims=True) - q * x.mean(1, keepdims=True))
        left = floor + scale * np.exp(q * x) - error
        squares = (left**2).sum(1)
        place = int(squares.argmin())
        if squares[place] < least:
            best = PowerLaw(
                floor=float(floor[place, 0]),
                scale=float(scale[place, 0]),
                q=float(q[place, 0]),
                p=float(p[place, 0]),
                residuals=tuple(left[place].tolist()),
            )
            least = squares[place]
        floors = _around(best.floor, floors, 0.0, highest)
        powers = _around(math.log(best.p), powers, math.log(0.05), math.log(_LARGEST_P))
    return best


def _around(
    middle: float, span: tuple[float, float], lowest: float, highest: float
) -> tuple[float, float]:
    """A quarter of ``span`` around ``middle``, within limits."""
    half = (span[1] - span[0]) / 8
    return max(lowest, middle - half), min(highest, middle + half)
