"""Dense convolution, BatchNorm, activation; optionally of uint8 images and with normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from effkernels import ops, reference
from specs import drawing, eager
from specs._window import Window, samples
from specs.case import PAD1
from specs.drawing import Draw, fitting
from specs.style import Style
from specs.work import Work


@dataclass(frozen=True)
class Dense(Window):
    """``conv_bn_act``, optionally of ``uint8`` images, which it may ``normalise``."""

    out_channels: int
    uint8: bool = False
    normalise: bool = False

    @property
    def op(self) -> str:
        """The op."""
        return "conv_bn_act"

    @property
    def depth(self) -> int:
        """Number of terms per sum."""
        return self.kernel[0] * self.kernel[1] * self.channels

    def _arguments(self) -> dict[str, Any]:
        convolution = self._convolution(self.out_channels, self.channels)
        x = self.style.x(self.n, self.channels, *self.size, uint8=self.uint8)
        norm = self.style.image_norm(self.channels, uint8=self.uint8) if self.normalise else {}
        return {"x": x, **convolution, **norm}

    def flat(self, op: str, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments in the order of the schema."""
        norm = arguments.get("mean"), arguments.get("std")
        return *super().flat(op, arguments), *norm

    @staticmethod
    def eager(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        bn: ops.BatchNorm | None,
        *,
        activation: str,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        **window: Any,
    ) -> Tensor:
        """One PyTorch call after the other."""
        if mean is not None or x.dtype != weight.dtype:
            x = reference.normalise(x, mean, std, weight.dtype)
        return eager.conv(x, ops.Conv(weight, bias, bn), activation, **window)

    def work(self) -> Work:
        """The images read once, the map written once, and the parameters."""
        outputs = self.out_channels * self.pixels_out
        elements = self.channels * self.pixels + outputs
        return self._work(elements, self._parameters(self.out_channels), outputs * self.depth)

    @property
    def key(self) -> str:
        """Unique among all cases with ordinary padding."""
        return self._named("conv", f"{self.channels}to{self.out_channels}")

    @property
    def title(self) -> str:
        """For people."""
        return self._titled(f"{self.channels} > {self.out_channels}", ", ")


SAMPLES = {
    **samples(partial(Dense, out_channels=5)),
    "uint8-normalised": Dense(
        *(2, 3, (7, 6), (3, 3), 5), stride=(2, 2), padding=PAD1, uint8=True, normalise=True
    ),
    "normalised": Dense(2, 3, (5, 8), (3, 3), 5, stride=(2, 2), padding=PAD1, normalise=True),
}

# uint8 or float images in NCHW, NHWC or other strides, with and without normalisation; padding on all
# sides.
_STEM = Dense(2, 3, (13, 20), (3, 3), 32, stride=(2, 2), padding=PAD1)
IMAGES = {
    f"{'uint8' if uint8 else 'float'} {layout}{' normalised' if normalise else ''}": replace(
        _STEM, uint8=uint8, normalise=normalise, style=Style(layout=layout)
    )
    for layout, uint8, normalise in (
        ("nchw", True, True),
        ("nhwc", True, True),
        ("sliced", True, True),
        ("nhwc", True, False),
        ("nhwc", False, True),
    )
}

# The stems of networks in NCHW and NHWC: widths of which 8, 4 and 1 elements may be read at once, padding of each
# parity on the left, channels that fill no group of 32, more columns than a tile has, one column, NaN beside windows.
STEMS = {
    "stem of NCHW": Dense(
        *(2, 3, (33, 40), (3, 3), 32),
        stride=(2, 2),
        padding=(0, 1, 0, 1),
        style=Style(layout="nchw", strange=3),
    ),
    "stem of strange values": Dense(
        *(2, 3, (9, 24), (3, 3), 24), stride=(2, 2), padding=PAD1, style=Style(strange=3)
    ),
    "stem of B4": Dense(
        *(2, 3, (11, 20), (3, 3), 48),
        stride=(2, 2),
        padding=PAD1,
        style=Style(layout="nchw", strange=3),
    ),
    "stem of B3 of bytes": Dense(
        *(1, 3, (9, 24), (3, 3), 40),
        stride=(2, 2),
        padding=(2, 3, 4, 0),
        activation="relu6",
        uint8=True,
        normalise=True,
        style=Style(layout="nchw"),
    ),
    "stem of B6": Dense(
        *(1, 3, (7, 23), (3, 3), 56),
        stride=(2, 2),
        padding=(1, 0, 7, 9),
        normalise=True,
        style=Style(layout="nchw"),
    ),
    "stem of one column": Dense(1, 3, (9, 2), (3, 3), 32, stride=(2, 2), padding=PAD1),
    "wide stem": Dense(
        *(1, 3, (4, 650), (3, 3), 8), stride=(2, 2), padding=PAD1, style=Style(layout="nchw")
    ),
    "wide stem of NHWC": Dense(
        *(1, 3, (4, 648), (3, 3), 16), stride=(2, 2), padding=PAD1, activation="hardswish"
    ),
}

EDGES = {
    **STEMS,
    "stem": Dense(2, 3, (33, 40), (3, 3), 32, stride=(2, 2), padding=(0, 1, 0, 1)),
    "stem of B7": Dense(1, 3, (17, 19), (3, 3), 64, stride=(2, 2), padding=PAD1),
    "chunks": Dense(1, 4, (9, 30), (3, 3), 200, padding=PAD1),
    "256 terms": Dense(1, 64, (6, 7), (2, 2), 70, padding=PAD1),
    "dilated": Dense(1, 6, (20, 21), (3, 2), 70, padding=(4, 0, 1, 3), dilation=(2, 3)),
    "only padding": Dense(1, 3, (1, 1), (3, 3), 20, stride=(3, 3), padding=(5, 6, 7, 8)),
    "channels_last": Dense(
        1, 9, (8, 9), (3, 3), 37, padding=PAD1, style=Style(weights="channels_last")
    ),
    "strided": Dense(1, 9, (8, 9), (3, 3), 37, padding=PAD1, style=Style(weights="strided")),
    "empty batch": Dense(0, 3, (8, 8), (3, 3), 5),
    **IMAGES,
}


def with_few_terms(case: Dense) -> Dense:
    """The case with at most 256 terms per sum, which GPU kernels accept."""
    return replace(case, channels=min(case.channels, 256 // (case.kernel[0] * case.kernel[1])))


def generate(draw: Draw) -> Dense:
    """Any shape with up to some millions of multiply-adds."""
    channels, kernel = drawing.few_channels(draw), drawing.kernel(draw)
    dilation = drawing.pair(draw) if drawing.boolean(draw) else (1, 1)
    n, out_channels = drawing.images(draw), draw.integer(1, 200)
    taps = kernel[0] * kernel[1] * channels * out_channels
    most = min(30_000 // (channels * max(n, 1)), 4_000_000 // (taps * max(n, 1)))
    size = drawing.size(draw, most)
    extent = kernel[0] * dilation[0] + 1, kernel[1] * dilation[1] + 1
    return Dense(
        n,
        channels,
        size,
        kernel,
        out_channels,
        stride=drawing.pair(draw),
        padding=fitting(size, kernel, dilation, drawing.sides(draw, extent)),
        dilation=dilation,
        activation=drawing.activation(draw),
        uint8=drawing.sometimes(draw),
        normalise=drawing.sometimes(draw),
        style=drawing.style(draw),
    )
