"""A backend of the tests' own, in the place of "triton": its kernels are functions that note their calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from effkernels import dispatch
from effkernels.ops._define import defined
from effkernels.ops._steps import NETWORK, run_by_steps

KERNELS = (
    *("conv_bn_act", "depthwise_conv_bn_act", "depthwise_conv_bn_act_pool"),
    *("pointwise_conv_bn_act", "pointwise_conv_bn_act_pool", "squeeze_excite_gate"),
)


def takes_all(*_: Any) -> None:
    """Rejects nothing."""


def reference(op: str, calls: list[str]) -> Callable[..., Any]:
    """The plain PyTorch of an op, as a kernel."""

    def run(*arguments: Any) -> Any:
        calls.append(op)
        return defined(op).reference(*arguments)

    return run


@contextmanager
def stand_in(kernels: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """Take CPU tensors with these kernels, and networks by their steps. Beside it there is plain PyTorch alone."""
    backend = dispatch.Backend("triton", ("cpu",))
    for op, run in kernels.items():
        backend.kernels[op] = dispatch.Kernel(run, takes_all)
    backend.kernels[NETWORK] = dispatch.Kernel(run_by_steps, takes_all, by_parts=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(dispatch._BACKENDS, "triton", backend)
        without = dispatch.Backend("cpu", ("cpu",), "not beside the tests' own")
        patch.setitem(dispatch._BACKENDS, "cpu", without)
        yield
