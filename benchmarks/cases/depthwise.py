"""Depthwise convolutions of networks."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cases import Scope, Suite
from benchmarks.cases.layers import (
    STYLE,
    Found,
    LayerCase,
    distinct,
    layers,
    models_for_convolutions,
    suite,
)
from specs.depthwise_conv_bn_act import Depthwise


def shapes(models: Sequence[str]) -> Found:
    """The depthwise convolutions of these networks, in order."""
    for model, activation, layer, _ in layers(models):
        if layer.kind == "depthwise":
            channels, *size = layer.in_shape
            kernel, stride = layer.kernel_size, layer.stride
            yield (
                Depthwise(
                    *(1, channels, (size[0], size[1]), (kernel, kernel)),
                    stride=(stride, stride),
                    padding=(kernel // 2,) * 4,
                    activation=activation,
                    style=STYLE,
                ),
                model,
            )


def suites(scope: Scope) -> list[Suite]:
    """Each distinct shape once."""
    cases = distinct(shapes(models_for_convolutions(scope)), scope, LayerCase)
    heading = "Depthwise convolutions, with BatchNorm and activation"
    return suite("depthwise", heading, cases, scope, "convolutions", place=20)
