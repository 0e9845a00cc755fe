"""Stems: the first convolutions of networks."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cases import Scope, Suite
from benchmarks.cases.layers import (
    STYLE,
    Found,
    LayerCase,
    distinct,
    models_for_convolutions,
    suite,
)
from effkernels.analysis import cost
from effkernels.models import get_config
from specs.conv_bn_act import Dense


def shapes(models: Sequence[str]) -> Found:
    """The stems of these networks, in order."""
    for model in models:
        layer = cost.model_cost(model).layers[0]
        channels, *size = layer.in_shape
        kernel, stride = layer.kernel_size, layer.stride
        yield (
            Dense(
                *(1, channels, (size[0], size[1]), (kernel, kernel), layer.out_shape[0]),
                stride=(stride, stride),
                padding=(kernel // 2,) * 4,
                activation=get_config(model).activation,
                style=STYLE,
            ),
            model,
        )


def suites(scope: Scope) -> list[Suite]:
    """Each distinct shape once."""
    cases = distinct(shapes(models_for_convolutions(scope)), scope, LayerCase)
    return suite("stem", "Stems", cases, scope, "convolutions", place=23)
