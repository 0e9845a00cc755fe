"""One function for each named model."""

from __future__ import annotations

from typing import Any, Literal, Protocol, overload

from effkernels.models.efficientnet import EfficientNet, EfficientNetFeatures
from effkernels.models.registry import create_model, get_config


class NamedModel(Protocol):
    """``create_model`` with the name given."""

    @overload
    def __call__(
        self, *, features_only: Literal[False] = False, **options: Any
    ) -> EfficientNet: ...
    @overload
    def __call__(self, *, features_only: Literal[True], **options: Any) -> EfficientNetFeatures: ...


def _named(name: str) -> NamedModel:
    def make(**options: Any) -> Any:
        return create_model(name, **options)

    resolution = get_config(name).resolution
    make.__name__ = make.__qualname__ = name
    make.__doc__ = (
        f"{name}, for images of {resolution} x {resolution} pixels; options as in ``create_model``."
    )
    return make


efficientnet_b0 = _named("efficientnet_b0")
efficientnet_b1 = _named("efficientnet_b1")
efficientnet_b2 = _named("efficientnet_b2")
efficientnet_b3 = _named("efficientnet_b3")
efficientnet_b4 = _named("efficientnet_b4")
efficientnet_b5 = _named("efficientnet_b5")
efficientnet_b6 = _named("efficientnet_b6")
efficientnet_b7 = _named("efficientnet_b7")
efficientnet_b8 = _named("efficientnet_b8")
efficientnet_l2 = _named("efficientnet_l2")
efficientnet_lite0 = _named("efficientnet_lite0")
efficientnet_lite1 = _named("efficientnet_lite1")
efficientnet_lite2 = _named("efficientnet_lite2")
efficientnet_lite3 = _named("efficientnet_lite3")
efficientnet_lite4 = _named("efficientnet_lite4")
