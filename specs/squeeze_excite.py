"""Squeeze-excitation: the gate from means, and the whole layer on a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from effkernels import ops
from specs import drawing, eager
from specs.case import Case, by_sides
from specs.drawing import Draw
from specs.oracle import in_float64
from specs.style import Style
from specs.work import Work


@dataclass(frozen=True)
class Squeeze(Case):
    """``squeeze_excite``; or ``squeeze_excite_gate`` if there is no ``size``. ``squeezed``: hidden channels."""

    squeezed: int
    size: tuple[int, int] | None

    @property
    def op(self) -> str:
        """The layer, or the gate alone."""
        return "squeeze_excite_gate" if self.size is None else "squeeze_excite"

    @property
    def depth(self) -> int:
        """Number of terms of both sums; the sigmoid and the product round too."""
        return self.channels + self.squeezed + 2

    def _arguments(self) -> dict[str, Any]:
        gate = self.style.gate(self.channels, self.squeezed)
        if self.size is None:
            first = {"pooled": torch.randn(self.n, self.channels, dtype=self.style.wide)}
        else:
            first = {"x": self.style.x(self.n, self.channels, *self.size)}
        return {**first, **gate._asdict(), "activation": self.activation}

    def flat(self, op: str, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments, which are already in the order of the schema; weights with two dimensions."""
        return tuple(_matrix(v) if "weight" in name else v for name, v in arguments.items())

    def magnitude(self, arguments: Mapping[str, Any]) -> float:
        """The largest sum of absolute values before the sigmoid, times the sigmoid's slope, times the images'
        values.
        """
        exact = in_float64(arguments)
        first = exact["pooled"] if self.size is None else exact["x"]
        x = first.abs().nan_to_num(0, 0, 0)
        if not x.numel():
            return 0.0
        weights = {
            name: None if value is None else _matrix(value.abs())
            for name, value in exact.items()
            if name.startswith(("reduce", "expand"))
        }
        pooled = x if self.size is None else x.mean((2, 3))
        hidden = F.linear(pooled, weights["reduce_weight"], weights["reduce_bias"])
        sums = F.linear(hidden, weights["expand_weight"], weights["expand_bias"]) / 4
        return sums.max().item() * (1.0 if self.size is None else x.max().item())

    @staticmethod
    def eager(
        x: Tensor,
        reduce_weight: Tensor,
        reduce_bias: Tensor | None,
        expand_weight: Tensor,
        expand_bias: Tensor | None,
        *,
        activation: str,
    ) -> Tensor:
        """The layer, one PyTorch call after the other."""
        weights = ops.Gate(reduce_weight, reduce_bias, expand_weight, expand_bias)
        return eager.squeeze_excite(x, weights, activation)

    def work(self) -> Work:
        """The map read for the means, then read and written, or the means and the gates; and the parameters."""
        weights = 2 * self.channels * self.squeezed
        biased = self.style.bias if self.style.gate_bias is None else self.style.gate_bias
        parameters = weights + (self.channels + self.squeezed) * biased
        if self.size is None:
            return self._work(0, parameters, weights, floats=2 * self.channels)
        return self._work(3 * self.channels * self.size[0] * self.size[1], parameters, weights)

    @property
    def key(self) -> str:
        """Unique among all cases."""
        size = "gate" if self.size is None else "x".join(map(str, self.size))
        return self._key(f"squeeze-{self.channels}ch-{self.squeezed}-{size}")

    @property
    def title(self) -> str:
        """For people."""
        size = "" if self.size is None else f" x {by_sides(self.size)}"
        return f"{self.channels}{size}, {self.squeezed} hidden"


def _matrix(tensor: Tensor) -> Tensor:
    """``tensor`` without the last two dimensions of a 1x1 kernel."""
    return tensor.flatten(1) if tensor.dim() == 4 else tensor


SAMPLES = {
    "map": Squeeze(3, 6, 2, (4, 5), style=Style(gate_bias=True)),
    "means": Squeeze(3, 6, 2, None, style=Style(gate_bias=True)),
}

EDGES = {
    "gate": Squeeze(3, 700, 45, None),
    "gates that share weights": Squeeze(266, 32, 9, None),
    "gates in several blocks": Squeeze(2, 600, 13, None),
    "gates of vectors": Squeeze(3, 1400, 24, None),
    # On tensor cores: 8 images together, clusters of blocks from 144, 672 and 1536 channels on.
    "nine gates of 240": Squeeze(9, 240, 10, None),
    "gates of more hidden channels than warps take": Squeeze(2, 48, 130, None),
    "layer of 680": Squeeze(2, 680, 28, (3, 3), style=Style(strange=2)),
    "layer of 1544": Squeeze(1, 1544, 64, (2, 2), activation="hardswish"),
    "layer of many bands": Squeeze(2, 16, 4, (40, 41), activation="relu"),
    "no hidden channels": Squeeze(2, 9, 0, None),
    "no gates": Squeeze(0, 33, 8, None),
    "bands": Squeeze(1, 20, 5, (30, 20)),
    "chunks": Squeeze(2, 200, 11, (5, 7)),
    "67 channels": Squeeze(2, 67, 3, (9, 9)),
    "not aligned": Squeeze(2, 64, 3, (9, 9), style=Style(layout="offset")),
    "no images": Squeeze(0, 33, 8, (3, 3)),
}


def generate(draw: Draw) -> Squeeze:
    """A layer on maps with up to some 40,000 values."""
    channels, n = drawing.channels(draw), drawing.images(draw)
    return Squeeze(
        n,
        channels,
        draw.integer(1, 90),
        drawing.size(draw, 40_000 // (channels * max(n, 1))),
        activation=drawing.activation(draw),
        style=drawing.style(draw),
    )


def generate_gate(draw: Draw) -> Squeeze:
    """A gate with any number of channels."""
    channels, n = drawing.channels(draw), drawing.images(draw)
    chosen = drawing.activation(draw)
    return Squeeze(
        n, channels, draw.integer(1, 90), None, activation=chosen, style=drawing.style(draw)
    )
