"""The first two convolutions of a block as one op; also with the means of the result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from effkernels import ops
from effkernels.reference.convolution import output_size
from specs import drawing, eager
from specs.case import BN_VECTORS, PAD1, PAD2, Case, by_sides, flat_conv
from specs.drawing import Draw, fitting
from specs.oracle import in_float64, largest_sum, run_reference
from specs.style import Style
from specs.work import Work


@dataclass(frozen=True)
class Expand(Case):
    """``expand_depthwise_conv_bn_act`` and its ``_pool``: 1x1 to ``expanded`` channels, then depthwise."""

    expanded: int
    size: tuple[int, int]
    kernel: int = 3
    stride: int = 1
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)

    @property
    def op(self) -> str:
        """The op without means."""
        return "expand_depthwise_conv_bn_act"

    @property
    def variants(self) -> tuple[str, ...]:
        """The op without means and the op with means."""
        return self.op, f"{self.op}_pool"

    @property
    def pixels(self) -> int:
        """Pixels of an input image."""
        return self.size[0] * self.size[1]

    @property
    def depth(self) -> int:
        """Number of terms of both sums, whose results are rounded too."""
        return self.channels + self.kernel**2 + 2

    def _arguments(self) -> dict[str, Any]:
        return {
            "x": self.style.x(self.n, self.channels, *self.size),
            "expand": self.style.conv(self.expanded, self.channels, 1, 1),
            "depthwise": self.style.conv(self.expanded, 1, self.kernel, self.kernel),
            "stride": self.stride,
            "padding": self.padding,
            "activation": self.activation,
        }

    def flat(self, op: str, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments in the order of the schema."""
        a = arguments
        convs = *flat_conv(a["expand"], matrix=True), *flat_conv(a["depthwise"])
        return a["x"], *convs, [self.stride] * 2, list(self.padding), a["activation"]

    def magnitude(self, arguments: Mapping[str, Any]) -> float:
        """The largest sum of absolute values of both convolutions, one after the other."""
        return largest_sum(ops.expand_depthwise_conv_bn_act, arguments)

    def rounded(self, arguments: Mapping[str, Any]) -> float:
        """Rounding the expanded map: half a unit in the last place of the depthwise convolution's largest sum."""
        exact = dict(in_float64(arguments))
        conv, chosen = exact.pop("expand"), {"activation": exact["activation"]}
        first = conv._asdict() | {"x": exact.pop("x")} | chosen
        (wide,) = run_reference(ops.pointwise_conv_bn_act, first)
        second = exact.pop("depthwise")._asdict() | {"x": wide}
        largest = largest_sum(ops.depthwise_conv_bn_act, second | exact)
        return torch.finfo(arguments["x"].dtype).eps / 2 * largest

    @staticmethod
    def eager(
        x: Tensor,
        expand: ops.Conv,
        depthwise: ops.Conv,
        *,
        stride: int,
        padding: tuple[int, int, int, int],
        activation: str,
    ) -> Tensor:
        """One PyTorch call after the other."""
        wide = eager.conv(x, expand, activation)
        window: dict[str, Any] = {"stride": stride, "padding": padding}
        return eager.conv(wide, depthwise, activation, groups=wide.shape[1], **window)

    def work(self) -> Work:
        """The input read once and the result written once, without the expanded map; and the parameters."""
        strides = (self.stride, self.stride)
        outputs = math.prod(
            output_size(self.size, (self.kernel, self.kernel), strides, self.padding, (1, 1))
        )
        elements = self.channels * self.pixels + self.expanded * outputs
        first, taps = self.channels * self.expanded, self.expanded * self.kernel**2
        normed = 2 * BN_VECTORS * self.expanded * (self.style.norm != "none")
        return self._work(elements, first + taps + normed, self.pixels * first + outputs * taps)

    @property
    def key(self) -> str:
        """Unique among all cases with ordinary padding."""
        height, width = self.size
        shape = f"{height}x{width}-{self.kernel}x{self.kernel}s{self.stride}"
        return self._key(f"expand-{self.channels}to{self.expanded}-{shape}")

    @property
    def title(self) -> str:
        """For people."""
        window = f"{self.kernel}x{self.kernel}/{self.stride}"
        return f"{self.channels} > {self.expanded}, {by_sides(self.size)}, {window}"


SAMPLES = {
    "3x3": Expand(2, 8, 20, (6, 7)),
    "5x5/2-same": Expand(
        *(2, 8, 20, (6, 7), 5, 2), padding=(2, 2, 1, 2), activation="relu6", style=Style(bias=True)
    ),
}

EDGES = {
    # Several tiles, the last ones incomplete, and several chunks, the last one incomplete.
    "3x3": Expand(1, 16, 40, (33, 70)),
    "3x3/2": Expand(1, 24, 50, (61, 40), stride=2, padding=(0, 1, 0, 1)),
    "5x5": Expand(2, 40, 60, (19, 18), 5, padding=PAD2),
    "5x5/2": Expand(1, 24, 50, (31, 70), 5, stride=2, padding=(1, 2, 1, 2)),
    "80 channels": Expand(1, 80, 49, (20, 30)),
    "112 channels": Expand(1, 112, 40, (14, 14), 5, stride=2, padding=(1, 2, 1, 2)),
    "128 channels": Expand(1, 128, 33, (9, 8)),
    # More tiles than chunks, and fewer.
    "several images": Expand(5, 24, 136, (3, 2), stride=2),
    "one image": Expand(1, 24, 264, (5, 3)),
    "13 channels": Expand(2, 13, 20, (7, 9), stride=2),
    "8 channels": Expand(2, 8, 16, (5, 6), 5, padding=(0, 3, 1, 2)),
    "1 expanded": Expand(2, 8, 1, (5, 6)),
    "not aligned": Expand(1, 24, 40, (9, 9), style=Style(layout="offset")),
    "tall": Expand(1, 8, 12, (300, 1), 5, stride=2, padding=PAD2),
    "wide": Expand(1, 8, 12, (1, 300)),
    "one pixel": Expand(3, 16, 24, (1, 1), 5, padding=PAD2),
    "mostly padding": Expand(2, 8, 9, (1, 2), padding=(40, 7, 9, 35)),
    "biases alone": Expand(
        1, 8, 24, (6, 6), activation="hardswish", style=Style(norm="none", bias=True)
    ),
    "strange": Expand(2, 16, 24, (9, 9), padding=PAD1, style=Style(strange=3)),
    "empty batch": Expand(0, 16, 24, (8, 8)),
}


# Those that one CUDA kernel computes, 48 expanded channels of a strip of columns at a time: by the channels of x, the
# window and the stride, for each of which it has other code.
IN_ONE_KERNEL = {
    "16, 3x3/2": Expand(2, 16, 48, (9, 12), 3, 2),
    "24, 3x3/2, two strips": Expand(1, 24, 48, (6, 140), 3, 2, padding=(0, 1, 0, 1)),
    "24, 3x3/2, as in Lite3": Expand(2, 24, 48, (9, 12), 3, 2, activation="relu6"),
    "32, 3x3/2, two chunks": Expand(2, 32, 96, (7, 20), 3, 2),
    "24, 3x3": Expand(3, 24, 48, (20, 12), activation="hardswish"),
    "32, 3x3, odd strips": Expand(1, 32, 48, (9, 75), style=Style(bias=True)),
    "40, 3x3": Expand(3, 40, 48, (7, 10), style=Style(norm="float32")),
    "24, 5x5/2": Expand(2, 24, 48, (13, 14), 5, 2, padding=PAD2),
    "32, 5x5/2, odd strips": Expand(
        1, 32, 48, (11, 71), 5, 2, padding=(1, 2, 1, 2), activation="relu6"
    ),
    "40, 5x5/2, two chunks": Expand(1, 40, 96, (20, 66), 5, 2, padding=PAD2),
    "images of few rows": Expand(7, 24, 48, (1, 6)),
    "mostly padding": Expand(2, 16, 48, (4, 6), 3, 2, padding=(9, 14, 2, 7)),
    "more padding than steps have rows": Expand(
        1, 16, 48, (14, 9), 3, 2, padding=(17, 3, 1, 1), activation="relu"
    ),
    "no norm": Expand(2, 24, 48, (5, 8), activation="identity", style=Style(norm="none")),
}


def generate_for_one_kernel(draw: Draw) -> Expand:
    """Like :data:`IN_ONE_KERNEL`, with up to some 6000 values."""
    kernel, stride = draw.choice(((3, 1), (3, 2), (5, 2)))
    channels = draw.choice((16, 24, 32) if (kernel, stride) == (3, 2) else (24, 32, 40))
    n, expanded = draw.choice((1, 1, 2, 4)), draw.choice((48, 48, 96))
    size = drawing.size(draw, 6_000 // (expanded * n))
    padding = fitting(size, (kernel, kernel), (1, 1), drawing.sides(draw, (kernel + 1, kernel + 1)))
    activation, style = drawing.activation(draw), drawing.style(draw)
    case = Expand(n, channels, expanded, size, kernel, stride, padding, activation=activation)
    return replace(case, style=replace(style, dtype=draw.choice((torch.float16, torch.bfloat16))))


def generate(draw: Draw) -> Expand:
    """16-bit cases of any channels, with up to some 8000 values."""
    n = draw.choice((1, 1, 2, 3, 0))
    channels, expanded = 8 * draw.integer(1, 16), draw.integer(1, 150)
    kernel = draw.choice((3, 5))
    size = drawing.size(draw, 8_000 // (max(channels, expanded) * max(n, 1)))
    padding = drawing.sides(draw, (kernel + 1, kernel + 1))
    style = drawing.style(draw)
    return Expand(
        n,
        channels,
        expanded,
        size,
        kernel,
        draw.choice((1, 2)),
        fitting(size, (kernel, kernel), (1, 1), padding),
        activation=drawing.activation(draw),
        style=replace(style, dtype=draw.choice((torch.float16, torch.bfloat16))),
    )
