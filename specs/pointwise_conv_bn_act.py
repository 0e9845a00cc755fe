"""1x1 convolution with what surrounds it: gate, BatchNorm, activation, residual; or with the means of its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effkernels import ops
from specs import drawing, eager
from specs.case import BN_VECTORS, Case, by_sides, flat_conv
from specs.drawing import Draw
from specs.oracle import largest_sum
from specs.style import Style
from specs.work import Work


@dataclass(frozen=True)
class Pointwise(Case):
    """``pointwise_conv_bn_act``; and, without gate and residual, ``_pool`` and ``_squeeze``.

    ``gated``: a gate multiplies the input. ``residual``: a map is added to the result.
    """

    out_channels: int
    size: tuple[int, int]
    gated: bool = False
    residual: bool = False

    @property
    def op(self) -> str:
        """The op without means."""
        return "pointwise_conv_bn_act"

    @property
    def variants(self) -> tuple[str, ...]:
        """Also, without gate and residual, the ops that return the means, with the map or without it."""
        if self.gated or self.residual:
            return (self.op,)
        return self.op, f"{self.op}_pool", f"{self.op}_squeeze"

    @property
    def pixels(self) -> int:
        """Pixels of an image, input or output."""
        return self.size[0] * self.size[1]

    @property
    def depth(self) -> int:
        """Number of terms per sum."""
        return self.channels

    def _arguments(self) -> dict[str, Any]:
        style = self.style
        return {
            "x": style.x(self.n, self.channels, *self.size),
            **style.conv(self.out_channels, self.channels)._asdict(),
            "gate": torch.rand(self.n, self.channels, dtype=style.wide) if self.gated else None,
            "residual": (
                style.images(self.n, self.out_channels, *self.size) if self.residual else None
            ),
            "activation": self.activation,
        }

    def arguments_of(self, op: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Without gate and residual for the ops with means."""
        surroundings = () if op == self.op else ("gate", "residual")
        return {name: value for name, value in arguments.items() if name not in surroundings}

    def flat(self, op: str, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments in the order of the schema."""
        a = arguments
        conv = flat_conv(ops.Conv(a["weight"], a["bias"], a["bn"]), matrix=True)
        surroundings = (a["gate"], a["residual"]) if op == self.op else ()
        return a["x"], *conv, *surroundings, a["activation"]

    def magnitude(self, arguments: Mapping[str, Any]) -> float:
        """The largest sum of absolute values that the convolution adds up."""
        return largest_sum(ops.pointwise_conv_bn_act, arguments)

    @staticmethod
    def eager(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        bn: ops.BatchNorm | None,
        *,
        gate: Tensor | None = None,
        residual: Tensor | None = None,
        activation: str,
    ) -> Tensor:
        """One PyTorch call after the other; the gate is cast to the dtype of the images."""
        if gate is not None:
            x = x * gate[:, :, None, None]
        y = eager.conv(x, ops.Conv(weight, bias, bn), activation)
        return y if residual is None else y.add_(residual)

    def work(self) -> Work:
        """Each map once, and the parameters."""
        maps = self.pixels * (self.channels + self.out_channels * (1 + self.residual))
        weights = self.channels * self.out_channels
        parameters = weights + BN_VECTORS * self.out_channels * (self.style.norm != "none")
        gates = self.channels * self.gated
        return self._work(maps, parameters, self.pixels * weights, floats=gates)

    @property
    def key(self) -> str:
        """Unique among all cases."""
        height, width = self.size
        name = f"pointwise-{self.channels}to{self.out_channels}-{height}x{width}"
        return self._key(name, f"{'-gated' * self.gated}{'-residual' * self.residual}")

    @property
    def title(self) -> str:
        """For people."""
        around = f"{', gate' * self.gated}{', residual' * self.residual}"
        return f"{self.channels} > {self.out_channels}, {by_sides(self.size)}{around}"


SAMPLES = {
    "plain": Pointwise(2, 7, 4, (3, 5)),
    "gate": Pointwise(2, 7, 4, (3, 5), gated=True),
    "gate-residual": Pointwise(2, 7, 4, (3, 5), gated=True, residual=True, activation="identity"),
}

EDGES = {
    # Rows of a tile belong to several images; K in one block, and in several, the last one incomplete.
    "expand": Pointwise(3, 24, 100, (5, 5), gated=True),
    "K of 16": Pointwise(2, 16, 96, (33, 32)),
    "K of 24": Pointwise(2, 24, 144, (33, 32), residual=True),
    "K of 40": Pointwise(2, 40, 70, (33, 32), gated=True),
    "K of 112": Pointwise(2, 112, 70, (33, 32)),
    "project to 16": Pointwise(2, 200, 16, (33, 32), gated=True, residual=True),
    "project to 24": Pointwise(2, 144, 24, (33, 32), gated=True),
    "project to 40": Pointwise(2, 144, 40, (33, 32), gated=True, activation="identity"),
    "project to 112": Pointwise(2, 129, 112, (33, 32), gated=True),
    "large": Pointwise(1, 130, 140, (33, 63)),
    "tiles that span images": Pointwise(43, 200, 24, (7, 7), gated=True),
    "few pixels": Pointwise(2, 257, 70, (7, 7), gated=True, residual=True),
    "one pixel": Pointwise(3, 65, 33, (1, 1)),
    "one channel": Pointwise(2, 1, 1, (5, 3)),
    "not aligned": Pointwise(2, 64, 32, (9, 9), style=Style(layout="offset")),
    "empty batch": Pointwise(0, 9, 8, (3, 3)),
}


def generate(draw: Draw) -> Pointwise:
    """Any shape with up to some 16 million multiply-adds."""
    channels, n = drawing.channels(draw), drawing.images(draw)
    out_channels = drawing.channels(draw)
    most = min(100_000 // max(channels, out_channels), 16_000_000 // (channels * out_channels))
    return Pointwise(
        n,
        channels,
        out_channels,
        drawing.size(draw, most // max(n, 1)),
        gated=drawing.boolean(draw),
        residual=drawing.boolean(draw),
        activation=drawing.activation(draw),
        style=drawing.style(draw),
    )
