"""Compound scaling: the named table, the formula, the cost of a model, the largest within a budget.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019
(arXiv 1905.11946), section 3.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from effkernels.scaling.formula import (
    NAMED,
    Coefficients,
    CompoundScale,
    compound_scale,
    round_filters,
    round_repeats,
    round_resolution,
)

if TYPE_CHECKING:
    from effkernels.scaling.budget import BudgetFit, fit_budget, realised_ratio, scaled_config
    from effkernels.scaling.cost import ByExecution, LayerCost, ModelCost, model_cost
    from effkernels.scaling.memory import inference_memory, saved_bytes, training_memory
    from effkernels.scaling.paper import TABLE_2, Published, TableRow, table_rows

__all__ = [
    "NAMED",
    "TABLE_2",
    "BudgetFit",
    "ByExecution",
    "Coefficients",
    "CompoundScale",
    "LayerCost",
    "ModelCost",
    "Published",
    "TableRow",
    "compound_scale",
    "fit_budget",
    "inference_memory",
    "model_cost",
    "realised_ratio",
    "round_filters",
    "round_repeats",
    "round_resolution",
    "saved_bytes",
    "scaled_config",
    "table_rows",
    "training_memory",
]

# The model configurations take their numbers from the formula, and these modules look at the
# configurations: importing them here at once would be a circle.
_LATER = {
    "budget": ("BudgetFit", "fit_budget", "realised_ratio", "scaled_config"),
    "cost": ("ByExecution", "LayerCost", "ModelCost", "model_cost"),
    "memory": ("inference_memory", "saved_bytes", "training_memory"),
    "paper": ("TABLE_2", "Published", "TableRow", "table_rows"),
}


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
