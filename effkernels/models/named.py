"""One function for each named model."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from effkernels.models.efficientnet import EfficientNet, EfficientNetFeatures
from effkernels.models.options import OPTIONS, ModelOptions, check_options, show_options
from effkernels.models.registry import build
from effkernels.models.variants import VARIANTS

if TYPE_CHECKING:
    from typing_extensions import Unpack
else:
    # What `import *` gives: it fails where a row of the table has no function below. Type checkers cannot
    # compute such a list and take every public name of this file.
    __all__ = list(VARIANTS)


class _NamedModel(Protocol):
    """``create_model`` with the name given."""

    @overload
    def __call__(
        self, *, features_only: Literal[False] = False, **options: Unpack[ModelOptions]
    ) -> EfficientNet: ...
    @overload
    def __call__(
        self, *, features_only: Literal[True], **options: Unpack[ModelOptions]
    ) -> EfficientNetFeatures: ...
    @overload
    def __call__(
        self, *, features_only: bool, **options: Unpack[ModelOptions]
    ) -> EfficientNet | EfficientNetFeatures: ...


def _named(name: str) -> _NamedModel:
    variant = VARIANTS[name]

    def make(**options: Any) -> Any:
        check_options(name, options, OPTIONS)
        return build(variant.config, **options)

    size = variant.config.resolution
    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"{variant.title}, for images of {size} x {size} pixels.\n\n{_DETAILS}"
    show_options(make, build)
    return make


# The options' descriptions, which have one home.
_DETAILS = (
    inspect.cleandoc(build.__doc__ or "")
    .partition("\n\n")[2]
    .replace("    config: the architecture.\n", "")
)

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
