"""Compound scaling: the table of models, the formula, a model's cost, the largest network within a budget.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019
(arXiv 1905.11946), section 3. The names exported here are defined in `effkernels.models` and
`effkernels.analysis`.
"""

from effkernels.analysis.budget import (
    BudgetFit,
    Scaled,
    fit_budget,
    realised_ratio,
    scale_model,
    scaled_config,
)
from effkernels.analysis.cost import ByExecution, LayerCost, ModelCost, model_cost
from effkernels.analysis.free_scale import FreeFit, fit_free
from effkernels.analysis.memory import inference_memory, saved_bytes, training_memory
from effkernels.analysis.paper import TABLE_2, Published, TableRow, table_rows
from effkernels.analysis.power_law import PowerLaw, fitted_law
from effkernels.analysis.scaled_baselines import (
    TABLE_3,
    TABLE_7,
    ScaledBaseline,
    ScaledRow,
    scaled_rows,
)
from effkernels.models.scaling import (
    Coefficients,
    CompoundScale,
    compound_scale,
    round_filters,
    round_repeats,
    round_resolution,
)
from effkernels.models.variants import NAMED

__all__ = [
    "NAMED",
    "TABLE_2",
    "TABLE_3",
    "TABLE_7",
    "BudgetFit",
    "ByExecution",
    "Coefficients",
    "CompoundScale",
    "FreeFit",
    "LayerCost",
    "ModelCost",
    "PowerLaw",
    "Published",
    "Scaled",
    "ScaledBaseline",
    "ScaledRow",
    "TableRow",
    "compound_scale",
    "fit_budget",
    "fit_free",
    "fitted_law",
    "inference_memory",
    "model_cost",
    "realised_ratio",
    "round_filters",
    "round_repeats",
    "round_resolution",
    "saved_bytes",
    "scale_model",
    "scaled_config",
    "scaled_rows",
    "table_rows",
    "training_memory",
]
