"""Calls like earlier ones: what was checked and chosen for arguments of some kinds is not checked and chosen again.

Checking the arguments and choosing a backend takes as long as a small kernel on a CPU. Both depend only on the types,
dtypes, shapes and devices of tensors, and on the values of other arguments, which are quick to compare.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from effkernels import dispatch
from effkernels.ops._arguments import BatchNorm, Conv, Gate
from effkernels.ops._define import Op

Kinds = tuple[Any, ...]
"""What is compared of the arguments of a call."""

NO_NORM = (None, None, None, None, 0.0)
"""BatchNorm's arguments in a schema, if there is none."""

_VALUES = frozenset((NoneType, int, float, str, bool))
_GROUPS = frozenset((BatchNorm, Conv, Gate))
# Each op forgets what it knows when it knows so many kinds.
_MOST = 512


class Repeats:
    """What one op knows of its calls: the kernels of the backend for CPUs that were chosen, by kinds of arguments."""

    def __init__(self, op: Op) -> None:
        self._op = op
        self._known: dict[Kinds, tuple[dispatch.Choice, tuple[Any, ...]]] = {}

    def kinds(self, x: Any, *others: Any) -> Kinds | None:
        """What is compared of the arguments of a public op; None where each call must be checked.

        That is wherever a call does more than run a kernel on a CPU, such as saving what its gradient needs.
        """
        if not dispatch.is_plain_call() or not isinstance(x, Tensor) or not x.is_cpu:
            return None
        if torch.is_grad_enabled() or dispatch.autocast_enabled("cpu"):
            return None
        found: list[Any] = []
        return tuple(found) if _add((x, *others), found) else None

    def call(self, kinds: Kinds, *tensors: Any) -> Any:
        """The result of a call whose arguments are of these kinds, without checks; None if it must be checked.

        ``tensors`` are the first arguments of the schema, as the public op was given them.
        """
        known = self._known.get(kinds)
        if known is None or not known[0].holds():
            return None
        choice, others = known
        # Autograd has nothing to do here (see `kinds`), which PyTorch knows only in inference mode.
        if torch.is_inference_mode_enabled():
            return choice.kernel.run(*tensors, *others)
        with torch._C._AutoDispatchBelowAutograd():
            return choice.kernel.run(*tensors, *others)

    def remember(self, kinds: Kinds | None, arguments: tuple[Any, ...], others: int) -> None:
        """After a call with arguments of these kinds: remember what was chosen for ``arguments``, those of the schema.

        The last ``others`` of them are not tensors.
        """
        choice = None if kinds is None else dispatch.choice("cpu", self._op.name, arguments)
        if kinds is None or choice is None:
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[kinds] = choice, tuple(arguments[-others:])


def _add(arguments: tuple[Any, ...], found: list[Any]) -> bool:
    for argument in arguments:
        kind = argument.__class__
        if kind is Tensor or kind is Parameter:
            found += (argument.shape, argument.dtype, argument.device)
        elif kind in _VALUES:
            found.append(argument)
        elif kind in _GROUPS or (kind is tuple and all(type(value) is int for value in argument)):
            found.append(kind)
            if not _add(argument, found):
                return False
        else:
            return False
    return True
