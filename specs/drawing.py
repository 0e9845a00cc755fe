"""Random cases: the choices that all ops share. The caller decides how to choose (see :class:`Draw`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from effkernels.reference.elementwise import ACTIVATIONS
from specs.style import DTYPES, LAYOUTS, NORMS, WEIGHTS, Style

Option = TypeVar("Option")
Pair = tuple[int, int]
Sides = tuple[int, int, int, int]

# Around multiples of the vectors and chunks of every instruction set.
_EDGES = [k * width + e for width in (4, 8, 16, 48, 64, 128) for k in (1, 2, 3) for e in (-1, 0, 1)]
_SQUARE_KERNELS = ((3, 3), (5, 5), (7, 7))
_RARE_KERNELS = ((1, 1), (2, 2), (9, 9), (4, 11))


class Draw(Protocol):
    """Makes the choices: hypothesis in the tests (:mod:`specs.generators`), or any other source."""

    def integer(self, low: int, high: int) -> int:
        """From ``low`` to ``high``, both included."""

    def choice(self, options: Sequence[Option]) -> Option:
        """One of the options; the simplest come first."""


def boolean(draw: Draw) -> bool:
    """True or False."""
    return draw.choice((False, True))


def sometimes(draw: Draw) -> bool:
    """True in one of three cases."""
    return draw.choice((False, False, True))


def images(draw: Draw) -> int:
    """The number of images: rarely zero."""
    return draw.choice((1, 1, 1, 2, 2, 2, 3, 3, 7, 0))


def few_channels(draw: Draw) -> int:
    """Up to some hundreds."""
    return draw.integer(1, 20) if boolean(draw) else draw.choice(_EDGES)


def channels(draw: Draw) -> int:
    """Up to 2000."""
    kind = draw.choice(("few", "edge", "any"))
    if kind == "few":
        return draw.integer(1, 20)
    return draw.choice(_EDGES) if kind == "edge" else draw.integer(1, 2000)


def pair(draw: Draw) -> Pair:
    """A stride or a dilation: from 1 to 3, often the same both ways."""
    first = draw.integer(1, 3)
    return (first, first) if boolean(draw) else (first, draw.integer(1, 3))


def kernel(draw: Draw) -> Pair:
    """Height and width: often 3x3, 5x5 or 7x7."""
    kind = draw.choice(("square", "any", "rare"))
    if kind == "any":
        return draw.integer(1, 7), draw.integer(1, 7)
    return draw.choice(_SQUARE_KERNELS if kind == "square" else _RARE_KERNELS)


def activation(draw: Draw) -> str:
    """Often SiLU."""
    return draw.choice(sorted(ACTIVATIONS)) if boolean(draw) else "silu"


def size(draw: Draw, most: int) -> Pair:
    """Height and width with at most ``most`` pixels, often tall or wide."""
    first = draw.integer(1, max(1, min(most, 60)))
    second = draw.integer(1, max(1, min(most // first, 60)))
    return (first, second) if boolean(draw) else (second, first)


def sides(draw: Draw, most: Pair) -> Sides:
    """Padding above, below, left and right, at most ``most`` rows and columns."""
    top, bottom = (draw.integer(0, most[0]) for _ in range(2))
    left, right = (draw.integer(0, most[1]) for _ in range(2))
    return top, bottom, left, right


def fitting(
    size: Sequence[int], kernel: Sequence[int], dilation: Sequence[int], padding: Sides
) -> Sides:
    """The padding, increased below and on the right if the kernel would not fit otherwise."""
    top, bottom, left, right = padding
    missing = [
        dilation[i] * (kernel[i] - 1) + 1 - size[i] - padding[2 * i] - padding[2 * i + 1]
        for i in (0, 1)
    ]
    return top, bottom + max(0, missing[0]), left, right + max(0, missing[1])


def style(draw: Draw) -> Style:
    """Any style."""
    return Style(
        dtype=draw.choice(DTYPES),
        layout=draw.choice(LAYOUTS),
        weights=draw.choice(WEIGHTS),
        norm=draw.choice(NORMS),
        bias=boolean(draw),
        strange=draw.choice((0, 0, 0, 1, 3)),
        threads=draw.choice((1, 2, 3)),
        seed=draw.integer(0, 2**31),
    )
