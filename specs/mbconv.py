"""A whole inverted residual block: expand, depthwise, squeeze-excitation, project, residual."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from effkernels import ops
from effkernels.reference.convolution import output_size
from specs import drawing, eager
from specs.case import BN_VECTORS, Case, by_sides, flat_conv
from specs.drawing import Draw, fitting
from specs.oracle import in_float64, largest_sum, run_reference
from specs.style import Style
from specs.work import Work


@dataclass(frozen=True)
class Block(Case):
    """``mbconv``; ``expanded`` is 0 for a block without expansion, ``squeezed`` is 0 for one without a gate."""

    expanded: int
    out_channels: int
    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)
    squeezed: int = 0
    residual: bool = False

    @property
    def op(self) -> str:
        """The op."""
        return "mbconv"

    @property
    def wide(self) -> int:
        """Channels of the depthwise convolution."""
        return self.expanded or self.channels

    @property
    def pixels(self) -> int:
        """Pixels of an input image."""
        return self.size[0] * self.size[1]

    @property
    def pixels_out(self) -> int:
        """Pixels of an output map."""
        return math.prod(output_size(self.size, self.kernel, self.stride, self.padding, (1, 1)))

    @property
    def depth(self) -> int:
        """Number of terms of all three sums."""
        return self.channels + self.kernel[0] * self.kernel[1] + self.wide

    def _arguments(self) -> dict[str, Any]:
        style = self.style
        return {
            "x": style.x(self.n, self.channels, *self.size),
            "expand": style.conv(self.expanded, self.channels, 1, 1) if self.expanded else None,
            "depthwise": style.conv(self.wide, 1, *self.kernel),
            "gate": style.gate(self.wide, self.squeezed) if self.squeezed else None,
            "project": style.conv(self.out_channels, self.wide, 1, 1),
            "stride": self.stride,
            "padding": self.padding,
            "residual": self.residual,
            "activation": self.activation,
        }

    def flat(self, op: str, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments in the order of the schema."""
        a = arguments
        return (
            *(a["x"], *flat_conv(a["expand"], matrix=True), *flat_conv(a["depthwise"])),
            *(a["gate"] or (None,) * 4),
            *flat_conv(a["project"], matrix=True),
            *(list(self.stride), list(self.padding), self.residual, a["activation"]),
        )

    def magnitude(self, arguments: Mapping[str, Any]) -> float:
        """The largest sum of absolute values in the block's last product."""
        a = in_float64(arguments)
        wide = {"x": a["x"], **a["depthwise"]._asdict()}
        if a["expand"] is not None:
            first = {"x": a["x"], **a["expand"]._asdict(), "activation": self.activation}
            (wide["x"],) = run_reference(ops.pointwise_conv_bn_act, first)
        wide |= {"stride": self.stride, "padding": self.padding, "activation": self.activation}
        inner, pooled = run_reference(ops.depthwise_conv_bn_act_pool, wide)
        residual = a["x"] if self.residual else None
        last = {"x": inner, **a["project"]._asdict(), "residual": residual}
        if a["gate"] is not None:
            gate = {"pooled": pooled, **a["gate"]._asdict(), "activation": self.activation}
            (last["gate"],) = run_reference(ops.squeeze_excite_gate, gate)
        return largest_sum(ops.pointwise_conv_bn_act, last)

    @staticmethod
    def eager(
        x: Tensor,
        expand: ops.Conv | None,
        depthwise: ops.Conv,
        gate: ops.Gate | None,
        project: ops.Conv,
        *,
        stride: tuple[int, int],
        padding: tuple[int, int, int, int],
        residual: bool,
        activation: str,
    ) -> Tensor:
        """One PyTorch call after the other."""
        wide = x if expand is None else eager.conv(x, expand, activation)
        window: dict[str, Any] = {"stride": stride, "padding": padding}
        wide = eager.conv(wide, depthwise, activation, groups=wide.shape[1], **window)
        if gate is not None:
            wide = eager.squeeze_excite(wide, gate, activation)
        y = eager.conv(wide, project, "identity")
        return y.add_(x) if residual else y

    def work(self) -> Work:
        """Level 2: the input, the depthwise result written and read, the block's result, and the parameters."""
        inside, outside = self.pixels, self.pixels_out
        maps = self.channels * inside + outside * (
            2 * self.wide + self.out_channels * (1 + self.residual)
        )
        first = self.channels * self.expanded
        squeeze, last = 2 * self.wide * self.squeezed, self.wide * self.out_channels
        taps = self.wide * self.kernel[0] * self.kernel[1]
        normed = (self.wide + self.expanded + self.out_channels) * (self.style.norm != "none")
        biased = self.style.bias if self.style.gate_bias is None else self.style.gate_bias
        biases = (self.wide + self.squeezed) * (biased and self.squeezed > 0)
        parameters = first + taps + squeeze + last + BN_VECTORS * normed + biases
        return self._work(maps, parameters, inside * first + outside * (taps + last) + squeeze)

    @property
    def key(self) -> str:
        """Unique among all cases with ordinary padding."""
        (height, width), (rows, columns) = self.size, self.kernel
        widths = f"{self.channels}to{self.wide}to{self.out_channels}"
        shape = f"{height}x{width}-{rows}x{columns}s{self.stride[0]}-se{self.squeezed}"
        return self._key(f"block-{widths}-{shape}", "-residual" * self.residual)

    @property
    def title(self) -> str:
        """For people."""
        widths = " > ".join(map(str, dict.fromkeys((self.channels, self.wide))))
        window = "x".join(map(str, self.kernel))
        shape = f"{by_sides(self.size)}, {window}/{self.stride[0]}"
        return f"{widths} > {self.out_channels}, {shape}"


_GATED = Style(gate_bias=True)
SAMPLES = {
    "full": Block(2, 4, 12, 4, (6, 5), squeezed=2, residual=True, style=_GATED),
    "no-expand": Block(2, 4, 0, 4, (6, 5), squeezed=2, residual=True, style=_GATED),
    "stride-2-no-gate": Block(2, 4, 12, 4, (6, 5), stride=(2, 2)),
}

EDGES = {
    # The expanded rows fill a worker's buffer many times: it moves after every one or two rows of the result.
    "buffer moves": Block(1, 6, 34, 6, (40, 400), squeezed=4, residual=True),
    "buffer moves by two": Block(1, 6, 34, 10, (40, 390), (5, 5), (2, 2), (2, 2, 1, 2), squeezed=4),
    "buffer moves past rows": Block(1, 6, 34, 10, (40, 390), (2, 2), (3, 3), (0, 0, 0, 0)),
    "tall": Block(1, 8, 40, 8, (900, 3), squeezed=4, residual=True),
    "only padding": Block(1, 3, 20, 5, (2, 2), (3, 3), (2, 2), (7, 9, 8, 6), squeezed=4),
    # Images go through the block in groups, of which the last is smaller.
    "groups": Block(5, 8, 100, 16, (32, 33), squeezed=4, style=Style(threads=1)),
    "groups of one": Block(3, 4, 90, 16, (60, 61), squeezed=4, style=Style(threads=1)),
    "groups and threads": Block(3, 8, 150, 16, (40, 33), squeezed=4),
    "small images": Block(7, 40, 240, 40, (7, 7), (5, 5), (1, 1), (2,) * 4, 10, residual=True),
    "many chunks": Block(1, 20, 1999, 30, (5, 5), squeezed=9),
    "no expand": Block(2, 33, 0, 17, (30, 31), squeezed=8),
    "no expand, no gate": Block(2, 130, 0, 130, (12, 13), residual=True),
    "no gate": Block(2, 16, 96, 24, (20, 21), (3, 3), (2, 2), (0, 1, 0, 1)),
    "7x7": Block(1, 16, 70, 24, (20, 21), (7, 7), (1, 1), (3,) * 4, squeezed=4),
    "general kernel": Block(1, 16, 70, 24, (20, 21), (4, 2), (3, 1), (2, 3, 1, 0), squeezed=4),
    "many rows": Block(1, 4, 20, 4, (90, 6), (64, 3), (1, 1), (10, 0, 1, 1)),
    # Channels that GPUs' tensor cores take, in every part.
    "multiples of 8": Block(
        *(3, 24, 144, 24, (9, 10), (3, 3), (1, 1), (1,) * 4, 6, True), style=Style(strange=1)
    ),
    "multiples of 8, 5x5 of stride 2": Block(
        *(2, 40, 240, 80, (11, 8), (5, 5), (2, 2), (1, 2, 1, 2), 10), activation="relu6"
    ),
    "odd channels": Block(1, 33, 198, 70, (19, 19), (5, 5), (2, 2), (2,) * 4, squeezed=5),
    "empty batch": Block(0, 16, 96, 24, (20, 21), squeezed=4),
}


def generate(draw: Draw) -> Block:
    """Any block on maps with up to some 30,000 values."""
    n, channels = drawing.images(draw), draw.integer(1, 80)
    expanded = drawing.channels(draw) if drawing.boolean(draw) else 0
    kernel, residual = drawing.kernel(draw), drawing.boolean(draw)
    size = drawing.size(draw, 30_000 // (max(channels, expanded) * max(n, 1)))
    if residual:
        top, left = (draw.integer(0, k - 1) for k in kernel)
        padding = (top, kernel[0] - 1 - top, left, kernel[1] - 1 - left)
    else:
        free = drawing.sides(draw, (kernel[0] + 1, kernel[1] + 1))
        padding = fitting(size, kernel, (1, 1), free)
    return Block(
        n,
        channels,
        expanded,
        channels if residual else draw.integer(1, 150),
        size,
        kernel,
        (1, 1) if residual else drawing.pair(draw),
        padding,
        draw.integer(1, 40) if drawing.boolean(draw) else 0,
        residual,
        activation=drawing.activation(draw),
        style=drawing.style(draw),
    )
