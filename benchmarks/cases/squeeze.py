"""Squeeze-excitations of networks."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cases import Scope, Suite
from benchmarks.cases.block import shapes as blocks
from benchmarks.cases.layers import (
    STYLE,
    Found,
    LayerCase,
    distinct,
    models_for_other_layers,
    suite,
)
from specs.squeeze_excite import Squeeze


def shapes(models: Sequence[str]) -> Found:
    """The squeeze-excitations of these networks, in order."""
    for block, model in blocks(models):
        if block.squeezed:
            size = -(-block.size[0] // block.stride[0]), -(-block.size[1] // block.stride[1])
            activation = block.activation
            shape = Squeeze(
                *(1, block.wide, block.squeezed, size), activation=activation, style=STYLE
            )
            yield shape, model


def suites(scope: Scope) -> list[Suite]:
    """Each distinct shape once."""
    cases = distinct(shapes(models_for_other_layers(scope)), scope, LayerCase)
    return suite("squeeze", "Squeeze-excitation of a map", cases, scope, place=22)
