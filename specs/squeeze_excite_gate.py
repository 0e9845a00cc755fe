"""The gate of squeeze-excitation, from means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from specs import drawing
from specs.case import Case
from specs.drawing import Draw
from specs.oracle import in_float64
from specs.style import Style
from specs.work import Work


@dataclass(frozen=True)
class Gated(Case):
    """What a gate is part of. ``squeezed``: hidden channels."""

    squeezed: int

    @property
    def depth(self) -> int:
        """Terms of both sums; the sigmoid and the product round too."""
        return self.channels + self.squeezed + 2

    def _weights(self) -> dict[str, Any]:
        return {
            **self.style.gate(self.channels, self.squeezed)._asdict(),
            "activation": self.activation,
        }

    def flat(self, op: str, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments, which stand in the order of the schema; weights with two dimensions."""
        return tuple(_matrix(v) if "weight" in name else v for name, v in arguments.items())

    def _magnitude(self, exact: Mapping[str, Any], pooled: Tensor) -> float:
        """The largest sum of absolute values before the sigmoid, times the sigmoid's slope."""
        weights = {
            name: None if value is None else _matrix(value.abs())
            for name, value in exact.items()
            if name.startswith(("reduce", "expand"))
        }
        hidden = F.linear(pooled, weights["reduce_weight"], weights["reduce_bias"])
        sums = F.linear(hidden, weights["expand_weight"], weights["expand_bias"]) / 4
        return sums.max().item()

    def _weight_work(self, elements: int, *, floats: int = 0) -> Work:
        """Of one image's elements and float32 values read or written; and of the weights."""
        weights = 2 * self.channels * self.squeezed
        biased = self.style.bias if self.style.gate_bias is None else self.style.gate_bias
        parameters = weights + (self.channels + self.squeezed) * biased
        return self._work(elements, parameters, weights, floats=floats)


@dataclass(frozen=True)
class Gate(Gated):
    """``squeeze_excite_gate``."""

    @property
    def op(self) -> str:
        """The gate alone."""
        return "squeeze_excite_gate"

    def _arguments(self) -> dict[str, Any]:
        pooled = torch.randn(self.n, self.channels, dtype=self.style.wide)
        return {"pooled": pooled, **self._weights()}

    def magnitude(self, arguments: Mapping[str, Any]) -> float:
        """The largest sum of absolute values before the sigmoid, times the sigmoid's slope."""
        exact = in_float64(arguments)
        pooled = exact["pooled"].abs().nan_to_num(0, 0, 0)
        return self._magnitude(exact, pooled) if pooled.numel() else 0.0

    def work(self) -> Work:
        """The means, the gates and the parameters."""
        return self._weight_work(0, floats=2 * self.channels)

    @property
    def key(self) -> str:
        """Unique among all cases."""
        return self._key(f"gate-{self.channels}ch-{self.squeezed}")

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.channels}, {self.squeezed} hidden"


def _matrix(tensor: Tensor) -> Tensor:
    """Without the two dimensions of a 1x1 kernel."""
    return tensor.flatten(1) if tensor.dim() == 4 else tensor


SAMPLES = {"means": Gate(3, 6, 2, style=Style(gate_bias=True))}

EDGES = {
    "gate": Gate(3, 700, 45),
    "gates that share weights": Gate(266, 32, 9),
    "gates in several blocks": Gate(2, 600, 13),
    "gates of vectors": Gate(3, 1400, 24),
    # On tensor cores: 8 images together, two clusters here.
    "nine gates of 240": Gate(9, 240, 10),
    "gates of more hidden channels than warps take": Gate(2, 48, 130),
    "no hidden channels": Gate(2, 9, 0),
    "no gates": Gate(0, 33, 8),
}


def generate(draw: Draw) -> Gate:
    """A gate of any number of channels."""
    channels, n = drawing.channels(draw), drawing.images(draw)
    chosen = drawing.activation(draw)
    return Gate(n, channels, draw.integer(1, 90), activation=chosen, style=drawing.style(draw))
