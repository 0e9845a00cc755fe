"""Whole blocks of networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.cases import Scope, Suite
from benchmarks.cases.layers import STYLE, LayerCase, distinct, models_for_other_layers, suite
from effkernels.analysis import cost
from effkernels.models import get_config
from specs.mbconv import Block


def shapes(models: Sequence[str]) -> Iterator[tuple[Block, str]]:
    """The blocks of these networks, in order."""
    for model in models:
        layers = {layer.name: layer for layer in cost.model_cost(model).layers}
        for block in get_config(model).blocks():
            name = f"stages.{block.stage}.{block.index}"
            depthwise = layers[f"{name}.depthwise"]
            channels, height, width = layers.get(f"{name}.expand", depthwise).in_shape
            expanded = block.inner_channels
            kernel, stride = block.kernel_size, block.stride
            yield (
                Block(
                    *(1, channels, 0 if expanded == channels else expanded, block.out_channels),
                    size=(height, width),
                    kernel=(kernel, kernel),
                    stride=(stride, stride),
                    padding=(kernel // 2,) * 4,
                    squeezed=block.squeeze_channels or 0,
                    residual=block.residual,
                    activation=get_config(model).activation,
                    style=STYLE,
                ),
                model,
            )


def suites(scope: Scope) -> list[Suite]:
    """Each distinct shape once."""
    cases = distinct(shapes(models_for_other_layers(scope)), scope, LayerCase)
    return suite("block", "Whole blocks", cases, scope, place=24)
