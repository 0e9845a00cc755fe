"""Compound scaling: the named table, the formula, the cost of a model, and the largest model within a budget.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019
(arXiv 1905.11946), section 3.
"""

from __future__ import annotations

from effkernels.scaling.formula import (
    NAMED,
    Coefficients,
    CompoundScale,
    compound_scale,
    round_filters,
    round_repeats,
    round_resolution,
)

__all__ = [
    "NAMED",
    "Coefficients",
    "CompoundScale",
    "compound_scale",
    "round_filters",
    "round_repeats",
    "round_resolution",
]
