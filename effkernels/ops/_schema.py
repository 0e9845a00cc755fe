"""Named arguments: each op has a NamedTuple of its arguments, from which its schema is generated.

Backends, fakes and refusals take the arguments flat, in the order of the schema; :func:`named` restores the
names. Arguments that belong together, such as a convolution and its BatchNorm, form a group: a NamedTuple of its
own, which is unpacked where the op's NamedTuple is built and is a property of it where it is read.
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
    """Group: a convolution's bias and, unless ``running_mean`` and ``running_var`` are None, the BatchNorm after
    it.

    Corresponds to ``NormTensors`` in csrc/binding.
    """

    bias: Tensor | None
    bn_weight: Tensor | None
    bn_bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    eps: float


class ConvNorm(NamedTuple):
    """Group: a convolution's weight, followed by the fields of :class:`Norm`."""

    weight: Tensor
    bias: Tensor | None
    bn_weight: Tensor | None
    bn_bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    eps: float


def schema(arguments: type[tuple[Any, ...]], result: str) -> str:
    """The schema of an op with these ``arguments``, a NamedTuple, that returns ``result``."""
    types = get_type_hints(arguments)
    fields: tuple[str, ...] = getattr(arguments, "_fields")  # noqa: B009 - every NamedTuple has them
    return f"({', '.join(f'{_TYPES[types[name]]} {name}' for name in fields)}) -> {result}"


def named(
    arguments: Callable[..., Arguments], function: Callable[[Arguments], Any]
) -> Callable[..., Any]:
    """A function of flat arguments, in the order of the schema, that calls ``function`` with ``arguments``."""

    def flat(*values: Any) -> Any:
        return function(arguments(*values))

    return flat
