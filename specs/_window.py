"""Shared by the dense and the depthwise convolution: a window that moves over images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from effkernels import ops
from effkernels.reference.convolution import output_size
from specs.case import BN_VECTORS, PAD1, PAD2, Case, by_sides, flat_conv
from specs.oracle import largest_sum
from specs.style import Style


@dataclass(frozen=True)
class Window(Case):
    """A convolution with a window over images of ``size``; ``padding`` is (top, bottom, left, right)."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    _: KW_ONLY
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def pixels(self) -> int:
        """Pixels of an input image."""
        return self.size[0] * self.size[1]

    @property
    def pixels_out(self) -> int:
        """Pixels of an output map."""
        height, width = output_size(
            self.size, self.kernel, self.stride, self.padding, self.dilation
        )
        return height * width

    def _convolution(self, channels_out: int, channels_in: int) -> dict[str, Any]:
        """All arguments except the images."""
        conv = self.style.conv(channels_out, channels_in, *self.kernel)
        window = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        return {**conv._asdict(), **window, "activation": self.activation}

    def flat(self, op: str, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments in the order of the schema."""
        a = arguments
        conv = ops.Conv(a["weight"], a["bias"], a["bn"])
        window = (list(a["stride"]), list(a["padding"]), list(a["dilation"]))
        return a["x"], *flat_conv(conv), *window, a["activation"]

    def magnitude(self, arguments: Mapping[str, Any]) -> float:
        """The largest sum of absolute values that the convolution adds up."""
        return largest_sum(getattr(ops, self.op), arguments)

    def _parameters(self, channels_out: int) -> int:
        """Number of weights and of BatchNorm's values."""
        return channels_out * (self.depth + BN_VECTORS * (self.style.norm != "none"))

    def _named(self, name: str, channels: str) -> str:
        (height, width), (rows, columns) = self.size, self.kernel
        strides = (
            str(self.stride[0])
            if self.stride[0] == self.stride[1]
            else "x".join(map(str, self.stride))
        )
        return self._key(f"{name}-{channels}-{height}x{width}-{rows}x{columns}s{strides}")

    def _titled(self, channels: str, between: str) -> str:
        window = "x".join(map(str, self.kernel))
        return f"{channels}{between}{by_sides(self.size)}, {window}/{self.stride[0]}"


def samples(make: Callable[..., Any]) -> dict[str, Any]:
    """Windows of either kind that cover every kind of argument; ``make`` takes n, channels, size and kernel."""
    return {
        "3x3": make(2, 8, (7, 6), (3, 3), padding=PAD1),
        "5x5/2-same": make(2, 3, (8, 10), (5, 5), stride=(2, 2), padding=(1, 2, 1, 2)),
        "3x3/2-odd-bias": make(
            *(2, 9, (5, 7), (3, 3)),
            stride=(2, 2),
            padding=(0, 1, 1, 0),
            activation="relu6",
            style=Style(norm="none", bias=True),
        ),
        "one-pixel": make(2, 4, (1, 1), (5, 5), stride=(2, 1), padding=PAD2),
        "ragged": make(
            *(2, 1, (6, 9), (2, 4)),
            stride=(3, 1),
            padding=(0, 3, 5, 1),
            dilation=(2, 1),
            activation="hardswish",
        ),
    }
