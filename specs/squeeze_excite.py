"""Squeeze-and-excitation: the whole layer on a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from effkernels import ops
from specs import drawing, eager
from specs.case import by_sides
from specs.drawing import Draw
from specs.oracle import in_float64
from specs.squeeze_excite_gate import Gated
from specs.style import Style
from specs.work import Work


@dataclass(frozen=True)
class Squeeze(Gated):
    """``squeeze_excite``. ``squeezed``: hidden channels."""

    size: tuple[int, int]

    @property
    def op(self) -> str:
        """The layer."""
        return "squeeze_excite"

    def _arguments(self) -> dict[str, Any]:
        # The weights come first among the random numbers.
        weights = self._weights()
        return {"x": self.style.x(self.n, self.channels, *self.size), **weights}

    def magnitude(self, arguments: Mapping[str, Any]) -> float:
        """That of the gate times the largest image."""
        exact = in_float64(arguments)
        x = exact["x"].abs().nan_to_num(0, 0, 0)
        return self._magnitude(exact, x.mean((2, 3))) * x.max().item() if x.numel() else 0.0

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
        """The map read for the means, read again and written; and the parameters."""
        return self._weight_work(3 * self.channels * self.size[0] * self.size[1])

    @property
    def key(self) -> str:
        """Unique among all cases."""
        size = "x".join(map(str, self.size))
        return self._key(f"squeeze-{self.channels}ch-{self.squeezed}-{size}")

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.channels} x {by_sides(self.size)}, {self.squeezed} hidden"


SAMPLES = {"map": Squeeze(3, 6, 2, (4, 5), style=Style(gate_bias=True))}

EDGES = {
    # On tensor cores: clusters of blocks from 144, 672 and 1536 channels on.
    "680 channels": Squeeze(2, 680, 28, (3, 3), style=Style(strange=2)),
    "1544 channels": Squeeze(1, 1544, 64, (2, 2), activation="hardswish"),
    "many bands": Squeeze(2, 16, 4, (40, 41), activation="relu"),
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
