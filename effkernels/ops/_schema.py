"""Arguments by name: each op has a NamedTuple of its arguments, from which its schema is written.

Backends, fakes and refusals take the arguments flat, in the order of the schema; :func:`named` gives them names
again. What several arguments of an op make together, such as a convolution with its BatchNorm, is a group: a
NamedTuple of its own, unpacked into the op's where that is built, and a property of the op's where it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, get_type_hints

from torch import Tensor

Pair = tuple[int, int]
"""(Vertical, horizontal)."""
Sides = tuple[int, int, int, int]
"""(Top, bottom, left, right)."""

_TYPES: dict[Any, str] = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    Pair: "SymInt[2]",
    Sides: "SymInt[4]",
    bool: "bool",
    float: "float",
    str: "str",
}

Arguments = TypeVar("Arguments", bound=tuple[Any, ...])


class Norm(NamedTuple):
    """Group: a convolution's bias, and the BatchNorm behind it, if ``running_mean`` and ``running_var`` are there.

    ``NormTensors`` in csrc/binding is the same.
    """

    bias: Tensor | None
    bn_weight: Tensor | None
    bn_bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    eps: float


class ConvNorm(NamedTuple):
    """Group: a convolution's weight and what follows it, the fields of :class:`Norm`."""

    weight: Tensor
    bias: Tensor | None
    bn_weight: Tensor | None
    bn_bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    eps: float


def schema(arguments: type[tuple[Any, ...]], result: str) -> str:
    """The schema of an op of these ``arguments``, a NamedTuple, which returns ``result``."""
    types = get_type_hints(arguments)
    fields: tuple[str, ...] = getattr(arguments, "_fields")  # noqa: B009 - of every NamedTuple
    return f"({', '.join(f'{_TYPES[types[name]]} {name}' for name in fields)}) -> {result}"


def named(
    arguments: Callable[..., Arguments], function: Callable[[Arguments], Any]
) -> Callable[..., Any]:
    """``function``, which takes ``arguments`` by name, for those who have them flat, as the schema orders them."""

    def flat(*values: Any) -> Any:
        return function(arguments(*values))

    return flat
