"""Networks on the cuda backend: one C++ op of `effkernels._C_cuda`; see `effkernels._backends.network_ops`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from effkernels._backends import limits
from effkernels._backends.limits import Refusal
from effkernels._backends.network_layout import fingerprint
from effkernels._backends.network_ops import NetworkOps
from effkernels.ops._steps import LINEAR, Network


class Holder:
    """Keeps tensors held by `effkernels._C_cuda`, by their number, as long as it lives."""

    def __init__(self, number: int) -> None:
        self.number = number
        release: Callable[[int], int] = torch.ops.effkernels_cuda.release.default
        weakref.finalize(self, release, number).atexit = False


def hold(tensors: Sequence[Tensor], numbers: Sequence[int], eps: Sequence[float]) -> Holder:
    """Let C++ hold tensors, and the numbers of a network of them, as long as the result lives."""
    with torch._C._AutoDispatchBelowAutograd():  # taking is no operation on them
        number = torch.ops.effkernels_cuda.hold.default(list(tensors), list(numbers), list(eps))
    return Holder(number)


def same_layout() -> bool:
    """Whether the loaded module reads networks in the layout of this package."""
    packet = getattr(torch.ops.effkernels_cuda, "network_layout", None)
    return packet is not None and bool(packet() == fingerprint())


def refusal(of_steps: Refusal) -> Refusal:
    """What the op does not take: what ``of_steps`` refuses, and classifiers of no classes."""

    def refuses(x: Tensor, tensors: Sequence[Tensor], network: Network) -> str | None:
        last = network.steps[-1]
        if last.op == LINEAR and not tensors[last.tensors["weight"]].shape[0]:
            return "its classifiers have at least one class"
        return of_steps(x, tensors, network)

    return limits.on_gpu(refuses)


def define_network() -> NetworkOps:
    """Define ``network`` and ``network_maps``, and both of held tensors, of ``torch.ops.effkernels_cuda``."""
    return NetworkOps("cuda", hold)
