"""The scaling formula of EfficientNet. Pure arithmetic.

Source: Tan and Le 2019 (arXiv 1905.11946), section 3.3 and equation 3; rounding as in the authors'
TensorFlow code (tensorflow/tpu, ``efficientnet_builder.py``).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

ALPHA = 1.2
"""Depth per unit of phi, from the paper's grid search on B0."""
BETA = 1.1
"""Width per unit of phi."""
GAMMA = 1.15
"""Resolution per unit of phi."""
BASE_RESOLUTION = 224
"""Pixels a side of B0's input."""
CONSTRAINT = 2.0
"""What alpha * beta^2 * gamma^2 should be near, so that MACs grow about 2^phi."""
CONSTRAINT_TOLERANCE = 0.1
"""Relative distance from ``CONSTRAINT`` that passes without a warning. The paper has 1.92."""

# A product this close to an integer, relatively, is that integer: 2.2 * 25 > 55 as floats.
_SNAP = 1e-9
_BASE_DROPOUT, _LARGEST_DROPOUT, _LARGEST_DROPOUT_PHI = 0.2, 0.5, 7.0


def _snap(value: float) -> float:
    """``value``, or the nearest integer where floating-point error alone separates the two."""
    nearest = math.floor(value + 0.5)
    return float(nearest) if abs(value - nearest) <= _SNAP * max(1.0, abs(value)) else value


def check_number(name: str, value: float, *, minimum: float) -> float:
    """``value`` as a float, or the TypeError or ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}: pass a float")
    if not math.isfinite(value) or value < minimum:
        raise ValueError(f"{name} must be finite and at least {minimum:g}, got {value!r}")
    return float(value)


def check_positive(name: str, value: float) -> float:
    """As :func:`check_number`, for values above 0."""
    checked = check_number(name, value, minimum=0.0)
    if checked == 0.0:
        raise ValueError(f"{name} must be above 0, got {value!r}")
    return checked


def check_count(name: str, value: int, *, minimum: int = 1) -> int:
    """``value``, or the TypeError or ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return value


def round_filters(channels: float, width: float, divisor: int = 8) -> int:
    """Scale a channel count by ``width`` and round it to a multiple of ``divisor``.

    To the nearest multiple (halves up), at least ``divisor``, and one multiple more where that
    would lose over 10 % of the channels. Never falls as ``channels * width`` grows.

    Raises:
        TypeError: a non-number, or a divisor that is not an int.
        ValueError: ``channels`` or ``width`` not above 0 or not finite; ``divisor`` below 1.
    """
    scaled = _snap(check_positive("channels", channels) * check_positive("width", width))
    step = check_count("divisor", divisor)
    rounded = max(step, int(scaled + step / 2) // step * step)
    return rounded + step if rounded < 0.9 * scaled else rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Blocks of a stage at ``depth``: ``ceil(depth * repeats)``, safe against float error.

    Raises:
        TypeError: ``repeats`` not an int or ``depth`` not a number.
        ValueError: ``repeats`` below 1; ``depth`` not above 0 or not finite.
    """
    scaled = _snap(check_count("repeats", repeats) * check_positive("depth", depth))
    return max(1, math.ceil(scaled))


def round_resolution(resolution: float, divisor: int = 1) -> int:
    """Round an input side in pixels to the nearest multiple of ``divisor``, at least ``divisor``.

    Halves round up. The formula uses whole pixels; the named models were tuned by hand instead
    (240, 260, 300, 380 ...).

    Raises:
        TypeError: a non-number, or a divisor that is not an int.
        ValueError: ``resolution`` not above 0 or not finite; ``divisor`` below 1.
    """
    step = check_count("divisor", divisor)
    scaled = _snap(check_positive("resolution", resolution) / step + 0.5)
    return max(1, math.floor(scaled)) * step


@dataclass(frozen=True)
class Coefficients:
    """Multipliers of B0's width and depth, input side in pixels, classifier dropout."""

    width: float
    depth: float
    resolution: int
    dropout: float


@dataclass(frozen=True)
class CompoundScale:
    """What the formula gives at one ``phi``. Made by :func:`compound_scale`."""

    phi: float
    alpha: float
    beta: float
    gamma: float
    base_resolution: int
    depth: float
    """alpha ** phi."""
    width: float
    """beta ** phi."""
    resolution: int
    """base_resolution * gamma ** phi, rounded to whole pixels."""
    nominal_ratio: float
    """2 ** phi: the growth of MACs that the paper states. Rounding makes the real one differ."""

    @property
    def constraint(self) -> float:
        """alpha * beta^2 * gamma^2: growth of MACs per unit of phi before rounding."""
        return self.alpha * self.beta**2 * self.gamma**2

    @property
    def constraint_met(self) -> bool:
        """Whether :attr:`constraint` lies within 10 % of 2."""
        return abs(self.constraint - CONSTRAINT) <= CONSTRAINT_TOLERANCE * CONSTRAINT

    @property
    def dropout(self) -> float:
        """Classifier dropout: linear in phi from 0.2 to 0.5 at 7 and above (section 5.2)."""
        return self.dropout_from(_BASE_DROPOUT)

    def dropout_from(self, base: float) -> float:
        """The same from another base's dropout; a base that has none, or 0.5 and more, keeps what it has."""
        if base == 0.0 or base >= _LARGEST_DROPOUT:
            return base
        share = min(1.0, self.phi / _LARGEST_DROPOUT_PHI)
        return base + (_LARGEST_DROPOUT - base) * share


def compound_scale(
    phi: float,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    base_resolution: int = BASE_RESOLUTION,
    resolution_divisor: int = 1,
) -> CompoundScale:
    """Scale depth, width and resolution together: alpha^phi, beta^phi, gamma^phi (equation 3).

    The named models follow this only roughly; take theirs from ``effkernels.scaling.NAMED``.

    Args:
        phi: at least 0; fractions allowed. 0 is the base model.
        alpha, beta, gamma: growth of depth, width and resolution per unit of phi, each at least 1.
        base_resolution: input side in pixels at phi 0.
        resolution_divisor: round the resolution to a multiple of this.

    Raises:
        TypeError: an argument that is not a number.
        ValueError: phi negative, alpha, beta or gamma below 1, anything not finite, or phi so large
            that a result is not.

    Warns:
        UserWarning: alpha * beta^2 * gamma^2 farther than 10 % from 2. The result stands, but MACs
            do not grow about 2^phi; see :attr:`CompoundScale.constraint`.
    """
    scale = unwarned_scale(
        phi,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        base_resolution=base_resolution,
        resolution_divisor=resolution_divisor,
    )
    warn_of_constraint(scale, stacklevel=3)
    return scale


def unwarned_scale(
    phi: float,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    base_resolution: int,
    resolution_divisor: int,
) -> CompoundScale:
    """:func:`compound_scale` without its warning, for searches that ask many times."""
    phi = check_number("phi", phi, minimum=0.0)
    alpha, beta, gamma = (
        check_number(name, value, minimum=1.0)
        for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma))
    )
    base_resolution = check_count("base_resolution", base_resolution)
    try:
        return CompoundScale(
            phi=phi,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            base_resolution=base_resolution,
            depth=alpha**phi,
            width=beta**phi,
            resolution=round_resolution(base_resolution * gamma**phi, resolution_divisor),
            nominal_ratio=2.0**phi,
        )
    except OverflowError:
        raise ValueError(
            f"phi={phi:g} is too large: the scaled sizes exceed the range of a float"
        ) from None


def warn_of_constraint(scale: CompoundScale, *, stacklevel: int) -> None:
    """Warn where alpha * beta^2 * gamma^2 is not about 2."""
    if not scale.constraint_met:
        warnings.warn(
            f"alpha * beta^2 * gamma^2 = {scale.constraint:.3f} is not about 2: "
            f"MACs will grow about {scale.constraint:.3f}^phi, not 2^phi",
            UserWarning,
            stacklevel=stacklevel,
        )
