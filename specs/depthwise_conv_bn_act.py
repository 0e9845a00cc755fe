"""Depthwise convolution, BatchNorm, activation; also with the means of the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from effkernels import ops
from specs import drawing, eager
from specs._window import Window, samples
from specs.case import PAD1, PAD2, PAD3
from specs.drawing import Draw, fitting
from specs.style import Style
from specs.work import Work


@dataclass(frozen=True)
class Depthwise(Window):
    """``depthwise_conv_bn_act`` and ``depthwise_conv_bn_act_pool``."""

    @property
    def op(self) -> str:
        """The op without means."""
        return "depthwise_conv_bn_act"

    @property
    def variants(self) -> tuple[str, ...]:
        """The op without means and the op with means."""
        return self.op, f"{self.op}_pool"

    @property
    def depth(self) -> int:
        """Number of terms per sum."""
        return self.kernel[0] * self.kernel[1]

    def _arguments(self) -> dict[str, Any]:
        convolution = self._convolution(self.channels, 1)
        return {"x": self.style.x(self.n, self.channels, *self.size), **convolution}

    @staticmethod
    def eager(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        bn: ops.BatchNorm | None,
        *,
        activation: str,
        **window: Any,
    ) -> Tensor:
        """One PyTorch call after the other."""
        layer = ops.Conv(weight, bias, bn)
        return eager.conv(x, layer, activation, groups=x.shape[1], **window)

    def work(self) -> Work:
        """The input read once, the output written once, and the parameters."""
        outputs = self.channels * self.pixels_out
        elements = self.channels * self.pixels + outputs
        return self._work(elements, self._parameters(self.channels), outputs * self.depth)

    @property
    def key(self) -> str:
        """Unique among all cases with ordinary padding."""
        return self._named("depthwise", f"{self.channels}ch")

    @property
    def title(self) -> str:
        """For people."""
        return self._titled(str(self.channels), " x ")


SAMPLES = samples(Depthwise)

EDGES = {
    # Several tiles vertically and horizontally, with incomplete last ones; several chunks of
    # channels.
    "3x3": Depthwise(2, 136, (19, 37), (3, 3), padding=PAD1),
    "3x3/2": Depthwise(2, 136, (35, 18), (3, 3), stride=(2, 2), padding=(0, 1, 0, 1)),
    "5x5": Depthwise(1, 136, (18, 36), (5, 5), padding=PAD2),
    "5x5/2": Depthwise(1, 136, (29, 37), (5, 5), stride=(2, 2), padding=(1, 2, 1, 2)),
    "7x7": Depthwise(1, 72, (17, 19), (7, 7), padding=PAD3),
    "7x7/2": Depthwise(1, 72, (19, 37), (7, 7), stride=(2, 2), padding=PAD3),
    # Whole vectors of 16-bit and float elements, only of float elements, and neither; two channels,
    # one channel.
    "12 channels": Depthwise(2, 12, (9, 9), (3, 3), padding=PAD1),
    "67 channels": Depthwise(2, 67, (9, 9), (5, 5), padding=PAD2),
    "2 channels": Depthwise(2, 2, (9, 9), (5, 5), padding=PAD2),
    "1 channel": Depthwise(2, 1, (9, 9), (3, 3), stride=(2, 2), padding=PAD1),
    "not aligned": Depthwise(2, 64, (9, 9), (3, 3), padding=PAD1, style=Style(layout="offset")),
    "tall": Depthwise(1, 8, (300, 1), (5, 5), stride=(2, 2), padding=PAD2),
    "wide": Depthwise(1, 8, (1, 300), (3, 3), padding=PAD1),
    "one pixel": Depthwise(3, 40, (1, 1), (5, 5), padding=PAD2),
    "only padding": Depthwise(2, 5, (1, 1), (3, 3), padding=(6, 7, 9, 5)),
    # Windows of the general kernel.
    "dilated": Depthwise(2, 40, (30, 30), (3, 3), padding=(9,) * 4, dilation=(9, 7)),
    "stride 2 by 1": Depthwise(1, 72, (14, 9), (3, 3), stride=(2, 1), padding=PAD1),
    "stride 3": Depthwise(1, 72, (14, 9), (5, 5), stride=(3, 3), padding=PAD2),
    "9x9": Depthwise(1, 130, (11, 12), (9, 9), padding=(4,) * 4),
    "64x1": Depthwise(1, 9, (80, 5), (64, 1), padding=(0, 5, 0, 0)),
    "2x4": Depthwise(1, 3, (20, 30), (2, 4), padding=(1, 0, 3, 0)),
    "empty batch": Depthwise(0, 40, (8, 8), (3, 3), padding=PAD1),
}

# Of 16 bits, for kernels that stream rows of a strip of columns of one image, or of two or four side by side: each of
# their configurations, cut strips, an image too few, rows of the result below the image, whole images.
ROWS = {
    "3x3, 64 channels": Depthwise(1, 64, (10, 34), (3, 3), padding=PAD1),
    "3x3, 32 channels": Depthwise(1, 32, (9, 40), (3, 3), padding=(2, 1, 0, 2)),
    "3x3, 20 columns": Depthwise(2, 24, (7, 20), (3, 3), padding=(0, 2, 1, 1)),
    "3x3, two abreast": Depthwise(5, 40, (6, 13), (3, 3), padding=PAD1),
    "3x3, four abreast": Depthwise(13, 40, (4, 6), (3, 3), padding=PAD1),
    "3x3/2, 96 channels": Depthwise(1, 96, (9, 70), (3, 3), stride=(2, 2), padding=(1, 0, 1, 1)),
    "3x3/2, two abreast": Depthwise(5, 64, (7, 23), (3, 3), stride=(2, 2), padding=(0, 1, 0, 1)),
    "3x3/2, four abreast": Depthwise(14, 32, (6, 11), (3, 3), stride=(2, 2), padding=PAD1),
    "3x3/2, one row": Depthwise(3, 8, (1, 9), (3, 3), stride=(2, 2), padding=PAD1),
    "5x5, 64 channels": Depthwise(1, 64, (6, 33), (5, 5), padding=(4, 4, 3, 1)),
    "5x5, 20 columns": Depthwise(2, 32, (7, 18), (5, 5), padding=PAD2),
    "5x5, two abreast": Depthwise(5, 40, (7, 11), (5, 5), padding=(3, 1, 0, 4)),
    "5x5, four abreast": Depthwise(13, 40, (3, 7), (5, 5), padding=PAD2),
    "5x5/2, 64 channels": Depthwise(1, 64, (8, 67), (5, 5), stride=(2, 2), padding=(2, 1, 2, 2)),
    "5x5/2, 40 columns": Depthwise(2, 48, (9, 40), (5, 5), stride=(2, 2), padding=(1, 2, 1, 2)),
    "5x5/2, two abreast": Depthwise(4, 24, (11, 21), (5, 5), stride=(2, 2), padding=PAD2),
    "5x5/2, four abreast": Depthwise(6, 24, (9, 13), (5, 5), stride=(2, 2), padding=(1, 2, 1, 2)),
    "more stages than a table": Depthwise(1, 8, (150, 3), (3, 3), padding=PAD1),
}


def generate(draw: Draw) -> Depthwise:
    """Any shape with up to some 30,000 values."""
    channels, kernel = drawing.channels(draw), drawing.kernel(draw)
    dilation = drawing.pair(draw) if drawing.boolean(draw) else (1, 1)
    n = drawing.images(draw)
    size = drawing.size(draw, 30_000 // (channels * max(n, 1)))
    extent = kernel[0] * dilation[0] + 1, kernel[1] * dilation[1] + 1
    return Depthwise(
        n,
        channels,
        size,
        kernel,
        stride=drawing.pair(draw),
        padding=fitting(size, kernel, dilation, drawing.sides(draw, extent)),
        dilation=dilation,
        activation=drawing.activation(draw),
        style=drawing.style(draw),
    )
