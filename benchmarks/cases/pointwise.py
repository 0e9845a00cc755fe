"""1x1 convolutions of networks, including the head, with what surrounds them; and the matrix product alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F

from benchmarks.cases import Scope, Suite
from benchmarks.cases.layers import (
    STYLE,
    Found,
    LayerCase,
    distinct,
    layers,
    models_for_other_layers,
    suite,
)
from benchmarks.harness.problem import Answer, Tensors
from specs.pointwise_conv_bn_act import Pointwise


class PointwiseCase(LayerCase):
    """A 1x1 convolution; "product" is its result before BatchNorm, without a gate."""

    def answers(self, some: Tensors, exact: Any) -> dict[str, Answer]:
        """The result, and the product alone."""
        magnitude = F.conv2d(exact["x"].abs(), exact["weight"].abs()).max().item()
        products = [F.conv2d(given["x"], given["weight"]) for given in (exact, some)]
        product = Answer(*products, magnitude, self.shape.channels)
        return {**super().answers(some, exact), "product": product}


def shapes(models: Sequence[str]) -> Found:
    """The 1x1 convolutions of these networks, in order."""
    for model, activation, layer, previous in layers(models):
        if layer.kind in ("expand", "project", "head"):
            project = layer.kind == "project"
            channels, height, width = layer.in_shape
            yield (
                Pointwise(
                    *(1, channels, layer.out_shape[0], (height, width)),
                    gated=project and previous.kind == "squeeze_excite",
                    residual=layer.residual,
                    activation="identity" if project else activation,
                    style=STYLE,
                ),
                model,
            )


def suites(scope: Scope) -> list[Suite]:
    """Each distinct shape once."""
    cases = distinct(shapes(models_for_other_layers(scope)), scope, PointwiseCase)
    heading = "1x1 convolutions, with what surrounds them"
    return suite("pointwise", heading, cases, scope, "products", place=21)
