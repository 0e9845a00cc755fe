"""How timm's data pipeline asks a model for its preprocessing."""

from __future__ import annotations

from typing import Any

from torch import nn

from effkernels.preprocessing import Preprocessing


def timm_config(model: nn.Module) -> dict[str, Any]:
    """``model.preprocessing`` in timm's words, for ``timm.data.resolve_data_config({}, model=model)``.

    Made anew at each call, so it follows ``model.preprocessing`` when that is set or weights are loaded.

    Raises:
        ValueError: ``model.preprocessing`` is no :class:`Preprocessing`: timm would take its own
            defaults in silence.
    """
    found = model.preprocessing
    if not isinstance(found, Preprocessing):
        raise ValueError(
            f"model.preprocessing is {type(found).__name__}, so nothing is known of how its images "
            f"are prepared: set it to an effkernels.Preprocessing"
        )
    return {
        "architecture": model.config.name,  # type: ignore[union-attr]
        "num_classes": getattr(model, "num_classes", 0),
        "input_size": (model.in_channels, found.size, found.size),
        "crop_pct": found.crop_fraction,
        "crop_mode": "center",
        "interpolation": found.interpolation,
        "mean": found.mean,
        "std": found.std,
    }
