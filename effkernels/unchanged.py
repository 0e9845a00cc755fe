"""Whether Python objects and tensors are as they were. Compiled code compares thousands of them at once.

`effkernels._C` provides that code. Without it nothing can be told here, and callers have to compare in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Objects(Protocol):
    """Python objects, as they were."""

    def same(self) -> bool:
        """Whether they still are, by identity."""


class Holder(Protocol):
    """Tensors that C++ holds, as they were; they are released with this."""

    @property
    def number(self) -> int:
        """How ops refer to them."""

    def same_kinds(self) -> bool:
        """Whether dtypes, devices and shapes still are; and they may have other contents, in another memory."""

    def same_memory(self) -> bool:
        """Whether also memory and strides are, as far as that can be told."""


_PLAIN = frozenset((Tensor, nn.Parameter))


class _Compiled(NamedTuple):
    objects: Callable[..., Objects]
    hold: Callable[[Sequence[Tensor], Sequence[int], Sequence[float]], Holder]


_compiled: _Compiled | None = None


def use(
    objects: Callable[..., Objects],
    hold: Callable[[Sequence[Tensor], Sequence[int], Sequence[float]], Holder],
) -> None:
    """Look at objects and hold tensors by these from now on."""
    global _compiled
    _compiled = _Compiled(objects, hold)


def can_tell() -> bool:
    """Whether there is such code here."""
    return _compiled is not None


def look_at(
    *,
    instances: Sequence[Any] = (),
    dicts: Sequence[dict[Any, Any]] = (),
    names: Sequence[dict[Any, Any]] = (),
    entries: Sequence[tuple[dict[Any, Any], Any]] = (),
    empty: Sequence[Any] = (),
    types: Sequence[Any] = (),
    attributes: Sequence[tuple[Any, str]] = (),
) -> Objects | None:
    """These objects as they are now; they are kept alive. None where nobody can tell.

    Args:
        instances: of which class they are, and all that their ``__dict__`` holds.
        dicts: all that they hold, in order.
        names: dictionaries of which the keys count alone.
        entries: dictionaries and a key of each, whose value counts.
        types: objects of which the class alone counts.
        empty: containers. If one is not empty, nothing is the same.
        attributes: objects, preferably classes, and the name of an attribute of each.

    Raises:
        KeyError, AttributeError: there is no such entry or attribute.
    """
    if _compiled is None:
        return None
    return _compiled.objects(instances, dicts, names, entries, empty, types, attributes)


def hold(
    tensors: Sequence[Tensor], numbers: Sequence[int] = (), eps: Sequence[float] = ()
) -> Holder | None:
    """Let C++ hold tensors, and what describes a network of them; see `effkernels._backends.cpu_network`.

    None where there is no such code, a mode of PyTorch's would see the call, or they are no plain tensors; and where
    modules may be told to swap their tensors, which PyTorch refuses while somebody holds them.
    """
    if (
        _compiled is None
        or torch._C._len_torch_dispatch_stack()
        or torch.__future__.get_swap_module_params_on_conversion()
        or not _PLAIN.issuperset(map(type, tensors))
    ):
        return None
    return _compiled.hold(tensors, numbers, eps)
