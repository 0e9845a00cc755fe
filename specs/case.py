"""The base class of all cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from effkernels import ops
from specs.style import Style
from specs.work import Work

FLOAT_BYTES = 4
BN_VECTORS = 4
PAD1, PAD2, PAD3 = (1,) * 4, (2,) * 4, (3,) * 4

AnyCase = TypeVar("AnyCase", bound="Case")


@dataclass(frozen=True)
class Check:
    """One op with a case's arguments, and what the tolerance rule needs (see :mod:`specs.tolerance`)."""

    op: str
    arguments: Mapping[str, Any]
    magnitude: float
    depth: int
    rounded: float = 0.0


@dataclass(frozen=True)
class Case:
    """One call of an op on ``n`` images of ``channels`` channels; consists of plain numbers that print well.

    Subclasses add the shape. ``style`` says what the tensors look like, ``activation`` is the op's argument.
    """

    n: int
    channels: int
    _: KW_ONLY
    activation: str = "silu"
    style: Style = field(default_factory=Style)

    @property
    def op(self) -> str:
        """The name of the op that computes the case."""
        raise NotImplementedError

    @property
    def pixels(self) -> int:
        """Pixels of an input image."""
        raise NotImplementedError

    @property
    def variants(self) -> tuple[str, ...]:
        """The op, and related ops that take the same arguments (or some of them: see ``arguments_of``)."""
        return (self.op,)

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``effkernels.ops.<op>``, with the same random numbers each time."""
        torch.manual_seed(self.style.seed)
        return self._arguments()

    def _arguments(self) -> dict[str, Any]:
        raise NotImplementedError

    def arguments_of(self, op: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that one of the ``variants`` takes."""
        return dict(arguments)

    def flat(self, op: str, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments as ``torch.ops.effkernels.<op>`` takes them, in the order of its schema."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """Number of terms per sum, including all intermediate roundings."""
        raise NotImplementedError

    def depth_of(self, op: str) -> int:
        """The same for one of the ``variants``: those other than ``op`` return means, which also sum over pixels."""
        return self.depth if op == self.op else self.depth + self.pixels

    def magnitude(self, arguments: Mapping[str, Any]) -> float:
        """The largest sum of absolute values that the op adds up."""
        raise NotImplementedError

    def rounded(self, arguments: Mapping[str, Any]) -> float:
        """How much error the op may have because it rounds maps internally, as if it wrote them to memory."""
        return 0.0

    def checks(self) -> Iterator[Check]:
        """The op and its variants, for comparison with the reference by the tolerance rule."""
        arguments = self.arguments()
        magnitude, rounded = self.magnitude(arguments), self.rounded(arguments)
        for op in self.variants:
            given = self.arguments_of(op, arguments)
            yield Check(op, given, magnitude, self.depth_of(op), rounded)

    @staticmethod
    def eager(**arguments: Any) -> Tensor:
        """The op's map as separate PyTorch calls, as a user's modules compute it."""
        raise NotImplementedError

    def work(self) -> Work:
        """The minimum bytes, in the dtype of ``style``, and the multiply-adds."""
        raise NotImplementedError

    def _work(self, elements: int, parameters: int, macs: int, *, floats: int = 0) -> Work:
        """From one image's elements read or written and multiply-adds, the parameters, and float32 values per
        image.
        """
        own = self.style.dtype.itemsize * (self.n * elements + parameters)
        return Work(own + self.n * floats * FLOAT_BYTES, self.n * macs)

    @property
    def key(self) -> str:
        """A name that is unique among cases of all ops with ordinary padding, and usable as a file name."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """For people."""
        raise NotImplementedError

    def styled(self: AnyCase, **changes: Any) -> AnyCase:
        """The same shape with another dtype, seed or other field of :class:`Style`."""
        return replace(self, style=replace(self.style, **changes))

    def _key(self, name: str, around: str = "") -> str:
        return f"{name}-batch{self.n}-{self.activation}{around}"


def flat_conv(conv: ops.Conv | None, *, matrix: bool = False) -> tuple[Any, ...]:
    """A convolution as in the schemas: weight (C_out, C_in if a ``matrix``), bias, BatchNorm's vectors, eps."""
    if conv is None:
        return (*(None,) * 6, 0.0)
    weight = conv.weight.flatten(1) if matrix and conv.weight.dim() == 4 else conv.weight
    return weight, conv.bias, *((None,) * 4 + (0.0,) if conv.bn is None else conv.bn)


def by_sides(size: Sequence[int]) -> str:
    """ "H x W" of (H, W)."""
    return f"{size[0]} x {size[1]}"
