"""Calls of ops for hypothesis to vary: plain numbers that print well, and the tensors made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from effkernels import ops
from effkernels.reference.elementwise import ACTIVATIONS

STRANGE = (torch.nan, torch.inf, -torch.inf)


@dataclass(frozen=True)
class Style:
    """What a case's tensors look like.

    ``layout``: of the images. "offset" is NHWC from the second element of a storage on, so that nothing is
    aligned. ``weights``: "strided" ones are every second column of larger ones, "channels_last" ones have the
    memory format, "expanded" ones repeat one output channel. ``norm``: the dtype of BatchNorm's vectors,
    float32 or that of the images; or none. ``strange``: how many values of x are NaN or infinite.
    """

    dtype: torch.dtype = torch.float32
    layout: str = "nhwc"
    weights: str = "contiguous"
    norm: str = "float32"
    bias: bool = False
    strange: int = 0
    threads: int = 2
    seed: int = 0

    def images(self, *shape: int, uint8: bool = False) -> Tensor:
        def draw(*shape: int) -> Tensor:
            if uint8:
                return torch.randint(256, shape, dtype=torch.uint8)
            return torch.randn(shape).to(self.dtype)

        n, c, h, w = shape
        if self.layout == "nchw":
            return draw(*shape)
        if self.layout == "sliced":
            return draw(n, h + 2, w + 1, c + 3)[:, 2:, 1:, 3:].permute(0, 3, 1, 2)
        if self.layout == "expanded":
            return draw(n, c, 1, w).expand(shape)
        first = 1 if self.layout == "offset" else 0
        return draw(first + n * h * w * c)[first:].view(n, h, w, c).permute(0, 3, 1, 2)

    def x(self, *shape: int, uint8: bool = False) -> Tensor:
        """Images, with strange values in them where they are no integers."""
        images = self.images(*shape, uint8=uint8)
        if not self.strange or uint8 or not images.numel():
            return images
        images = images.clone()
        for i in range(self.strange):
            place = tuple(int(torch.randint(size, ())) for size in shape)
            images[place] = STRANGE[i % len(STRANGE)]
        return images

    def weight(self, *shape: int) -> Tensor:
        """Such that a result is as large as the input."""
        scale = max(1, torch.Size(shape[1:]).numel()) ** -0.5
        if self.weights == "strided":
            return (torch.randn(*shape[:-1], 2 * shape[-1]) * scale).to(self.dtype)[..., ::2]
        if self.weights == "expanded":
            return (torch.randn(1, *shape[1:]) * scale).to(self.dtype).expand(shape)
        made = (torch.randn(shape) * scale).to(self.dtype)
        if self.weights == "channels_last" and len(shape) == 4:
            return made.contiguous(memory_format=torch.channels_last)
        return made

    def vector(self, channels: int, dtype: torch.dtype, low: float, high: float) -> Tensor:
        made = torch.empty(2 * channels if self.weights == "strided" else channels)
        made.uniform_(low, high)
        return made.to(dtype)[::2] if self.weights == "strided" else made.to(dtype)

    def image_norm(self, channels: int, *, uint8: bool) -> dict[str, Tensor]:
        """Mean and standard deviation of images."""
        dtype = self.dtype if self.norm == "same" else torch.float32
        limits = ((100, 150), (40, 70)) if uint8 else ((-1, 1), (0.5, 2))
        mean, std = (self.vector(channels, dtype, *pair) for pair in limits)
        return {"mean": mean, "std": std}

    def batch_norm(self, channels: int) -> ops.BatchNorm | None:
        if self.norm == "none":
            return None
        dtype = self.dtype if self.norm == "same" else torch.float32
        limits = ((0.5, 1.5), (-0.5, 0.5), (-0.5, 0.5), (0.2, 1.2))
        return ops.BatchNorm(*(self.vector(channels, dtype, *pair) for pair in limits), 1e-3)

    def biases(self, channels: int) -> Tensor | None:
        return self.vector(channels, self.dtype, -0.5, 0.5) if self.bias else None

    def conv(self, *shape: int) -> ops.Conv:
        return ops.Conv(self.weight(*shape), self.biases(shape[0]), self.batch_norm(shape[0]))

    def gate(self, channels: int, squeezed: int) -> ops.Gate:
        return ops.Gate(
            self.weight(squeezed, channels),
            self.biases(squeezed),
            self.weight(channels, squeezed),
            self.biases(channels),
        )


@dataclass(frozen=True)
class Window:
    """A convolution with a window; ``out_channels`` 0 for a depthwise one.

    Dense ones may take ``uint8`` images, and ``normalise`` what they take.
    """

    n: int
    channels: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    out_channels: int = 0
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    activation: str = "silu"
    uint8: bool = False
    normalise: bool = False
    style: Style = field(default_factory=Style)

    @property
    def depth(self) -> int:
        """Terms of each sum."""
        return self.kernel[0] * self.kernel[1] * (self.channels if self.out_channels else 1)

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    def arguments(self) -> dict[str, Any]:
        torch.manual_seed(self.style.seed)
        shape = (self.out_channels or self.channels, self.channels if self.out_channels else 1)
        conv = self.style.conv(*shape, *self.kernel)
        arguments = {
            "x": self.style.x(self.n, self.channels, *self.size, uint8=self.uint8),
            **conv._asdict(),
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "activation": self.activation,
        }
        if self.normalise:
            arguments |= self.style.image_norm(self.channels, uint8=self.uint8)
        return arguments


@dataclass(frozen=True)
class Pointwise:
    n: int
    channels: int
    out_channels: int
    size: tuple[int, int]
    gated: bool = False
    residual: bool = False
    activation: str = "silu"
    style: Style = field(default_factory=Style)

    def arguments(self) -> dict[str, Any]:
        torch.manual_seed(self.style.seed)
        style = self.style
        return {
            "x": style.x(self.n, self.channels, *self.size),
            **style.conv(self.out_channels, self.channels)._asdict(),
            "gate": torch.rand(self.n, self.channels) if self.gated else None,
            "residual": (
                style.images(self.n, self.out_channels, *self.size) if self.residual else None
            ),
            "activation": self.activation,
        }


@dataclass(frozen=True)
class Squeeze:
    """squeeze_excite; squeeze_excite_gate where there is no ``size``."""

    n: int
    channels: int
    squeezed: int
    size: tuple[int, int] | None
    activation: str = "silu"
    style: Style = field(default_factory=Style)

    def arguments(self) -> dict[str, Any]:
        torch.manual_seed(self.style.seed)
        gate = self.style.gate(self.channels, self.squeezed)
        if self.size is None:
            first = {"pooled": torch.randn(self.n, self.channels)}
        else:
            first = {"x": self.style.x(self.n, self.channels, *self.size)}
        return {**first, **gate._asdict(), "activation": self.activation}


@dataclass(frozen=True)
class Block:
    """mbconv; ``expanded`` 0 for a block that does not expand, ``squeezed`` 0 for one without a gate."""

    n: int
    channels: int
    expanded: int
    out_channels: int
    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)
    squeezed: int = 0
    residual: bool = False
    activation: str = "silu"
    style: Style = field(default_factory=Style)

    @property
    def wide(self) -> int:
        return self.expanded or self.channels

    def arguments(self) -> dict[str, Any]:
        torch.manual_seed(self.style.seed)
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


@dataclass(frozen=True)
class Expand:
    """The first two convolutions of a block as one op, with and without the means."""

    n: int
    channels: int
    expanded: int
    size: tuple[int, int]
    kernel: int = 3
    stride: int = 1
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)
    activation: str = "silu"
    style: Style = field(default_factory=Style)

    def arguments(self) -> dict[str, Any]:
        torch.manual_seed(self.style.seed)
        return {
            "x": self.style.x(self.n, self.channels, *self.size),
            "expand": self.style.conv(self.expanded, self.channels, 1, 1),
            "depthwise": self.style.conv(self.expanded, 1, self.kernel, self.kernel),
            "stride": self.stride,
            "padding": self.padding,
            "activation": self.activation,
        }


_COUNTS = st.sampled_from([1, 1, 1, 2, 2, 2, 3, 3, 7, 0])
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Around whole vectors and panels of every instruction set.
_EDGES = [k * width + e for width in (4, 8, 16, 48, 64, 128) for k in (1, 2, 3) for e in (-1, 0, 1)]
CHANNELS = st.one_of(st.integers(1, 20), st.sampled_from(_EDGES), st.integers(1, 2000))
FEW_CHANNELS = st.one_of(st.integers(1, 20), st.sampled_from(_EDGES))
_SIDE = st.integers(1, 3)
PAIRS = st.one_of(_SIDE.map(lambda s: (s, s)), st.tuples(_SIDE, _SIDE))
KERNELS = st.one_of(
    st.sampled_from([(3, 3), (5, 5), (7, 7)]),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.sampled_from([(1, 1), (2, 2), (9, 9), (4, 11)]),
)
_SOMETIMES = st.sampled_from([False, False, True])
ACTIVATION = st.one_of(st.just("silu"), st.sampled_from(sorted(ACTIVATIONS)))


@st.composite
def styles(draw: st.DrawFn) -> Style:
    return Style(
        dtype=draw(st.sampled_from(DTYPES)),
        layout=draw(st.sampled_from(["nhwc", "offset", "nchw", "sliced", "expanded"])),
        weights=draw(st.sampled_from(["contiguous", "strided", "channels_last", "expanded"])),
        norm=draw(st.sampled_from(["float32", "same", "none"])),
        bias=draw(st.booleans()),
        strange=draw(st.sampled_from([0, 0, 0, 1, 3])),
        threads=draw(st.sampled_from([1, 2, 3])),
        seed=draw(st.integers(0, 2**31)),
    )


@st.composite
def sizes(draw: st.DrawFn, most: int) -> tuple[int, int]:
    """Height and width of at most so many pixels, many of them tall or wide."""
    height = draw(st.integers(1, max(1, min(most, 60))))
    width = draw(st.integers(1, max(1, min(most // height, 60))))
    return (height, width) if draw(st.booleans()) else (width, height)


def fitting(
    size: Sequence[int], kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int]
) -> tuple[int, int, int, int]:
    """The padding, with more below and on the right where the kernel would not fit."""
    top, bottom, left, right = padding
    missing = [
        dilation[i] * (kernel[i] - 1) + 1 - size[i] - padding[2 * i] - padding[2 * i + 1]
        for i in (0, 1)
    ]
    return top, bottom + max(0, missing[0]), left, right + max(0, missing[1])


@st.composite
def windows(draw: st.DrawFn, *, dense: bool) -> Window:
    channels = draw(FEW_CHANNELS if dense else CHANNELS)
    kernel, dilation = draw(KERNELS), draw(st.one_of(st.just((1, 1)), PAIRS))
    n = draw(_COUNTS)
    out_channels = draw(st.integers(1, 200)) if dense else 0
    most = 30_000 // (channels * max(n, 1))
    if dense:
        taps = kernel[0] * kernel[1] * channels * out_channels
        most = min(most, 4_000_000 // (taps * max(n, 1)))
    size = draw(sizes(most))
    extents = [kernel[i] * dilation[i] for i in (0, 0, 1, 1)]
    sides = draw(st.tuples(*(st.integers(0, extent + 1) for extent in extents)))
    return Window(
        n=n,
        channels=channels,
        size=size,
        kernel=kernel,
        out_channels=out_channels,
        stride=draw(PAIRS),
        padding=fitting(size, kernel, dilation, sides),
        dilation=dilation,
        activation=draw(ACTIVATION),
        uint8=dense and draw(_SOMETIMES),
        normalise=dense and draw(_SOMETIMES),
        style=draw(styles()),
    )


@st.composite
def pointwises(draw: st.DrawFn) -> Pointwise:
    channels, n = draw(CHANNELS), draw(_COUNTS)
    out_channels = draw(CHANNELS)
    most = min(100_000 // max(channels, out_channels), 16_000_000 // (channels * out_channels))
    return Pointwise(
        n=n,
        channels=channels,
        out_channels=out_channels,
        size=draw(sizes(most // max(n, 1))),
        gated=draw(st.booleans()),
        residual=draw(st.booleans()),
        activation=draw(ACTIVATION),
        style=draw(styles()),
    )


@st.composite
def squeezes(draw: st.DrawFn, *, layer: bool) -> Squeeze:
    channels, n = draw(CHANNELS), draw(_COUNTS)
    return Squeeze(
        n=n,
        channels=channels,
        squeezed=draw(st.integers(1, 90)),
        size=draw(sizes(40_000 // (channels * max(n, 1)))) if layer else None,
        activation=draw(ACTIVATION),
        style=draw(styles()),
    )


@st.composite
def expands(draw: st.DrawFn) -> Expand:
    n = draw(st.sampled_from([1, 1, 2, 3, 0]))
    channels, expanded = 8 * draw(st.integers(1, 16)), draw(st.integers(1, 150))
    kernel = draw(st.sampled_from([3, 5]))
    size = draw(sizes(8_000 // (max(channels, expanded) * max(n, 1))))
    sides = draw(st.tuples(*(st.integers(0, kernel + 1) for _ in range(4))))
    style = draw(styles())
    return Expand(
        n=n,
        channels=channels,
        expanded=expanded,
        size=size,
        kernel=kernel,
        stride=draw(st.sampled_from([1, 2])),
        padding=fitting(size, (kernel, kernel), (1, 1), sides),
        activation=draw(ACTIVATION),
        style=replace(style, dtype=draw(st.sampled_from([torch.float16, torch.bfloat16]))),
    )


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    n = draw(_COUNTS)
    channels, expanded = draw(st.integers(1, 80)), draw(st.one_of(st.just(0), CHANNELS))
    kernel, residual = draw(KERNELS), draw(st.booleans())
    size = draw(sizes(30_000 // (max(channels, expanded) * max(n, 1))))
    if residual:
        above = draw(st.tuples(*(st.integers(0, k - 1) for k in kernel)))
        sides = (above[0], kernel[0] - 1 - above[0], above[1], kernel[1] - 1 - above[1])
    else:
        sides = draw(st.tuples(*(st.integers(0, k + 1) for k in kernel for _ in "ab")))
    return Block(
        n=n,
        channels=channels,
        expanded=expanded,
        out_channels=channels if residual else draw(st.integers(1, 150)),
        size=size,
        kernel=kernel,
        stride=(1, 1) if residual else draw(PAIRS),
        padding=sides if residual else fitting(size, kernel, (1, 1), sides),
        squeezed=draw(st.one_of(st.just(0), st.integers(1, 40))),
        residual=residual,
        activation=draw(ACTIVATION),
        style=draw(styles()),
    )
