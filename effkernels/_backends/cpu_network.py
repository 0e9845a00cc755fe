"""Networks on the cpu backend: one C++ op of `effkernels._C`; see `effkernels._backends.network_ops`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from effkernels._backends.compiled import cpu_module
from effkernels._backends.network_ops import NetworkOps

_HOLD_SCHEMA = "hold(Tensor[] tensors, int[] numbers, float[] eps) -> int"
_library = torch.library.Library("effkernels_cpu", "FRAGMENT")  # type: ignore[no-untyped-call]


def hold(tensors: Sequence[Tensor], numbers: Sequence[int], eps: Sequence[float]) -> Any:
    """Let C++ hold tensors, and the numbers of a network of them, as long as the result lives."""
    module = cpu_module()
    assert module is not None
    with torch._C._AutoDispatchBelowAutograd():  # taking is no operation on them
        number = torch.ops.effkernels_cpu.hold.default(list(tensors), list(numbers), list(eps))
    return module.Holder(number)


def define_network() -> NetworkOps:
    """Define ``network`` and ``network_maps``, and both of held tensors, of ``torch.ops.effkernels_cpu``."""
    _library.define(_HOLD_SCHEMA)  # type: ignore[no-untyped-call]
    return NetworkOps("cpu", hold)
