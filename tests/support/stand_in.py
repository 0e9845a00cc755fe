"""A backend for tests, registered as "triton": its kernels are functions that record their calls."""

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
    """The reference of an op, as a kernel."""

    def run(*arguments: Any) -> Any:
        calls.append(op)
        return defined(op).reference(*arguments)

    return run


@contextmanager
def stand_in(kernels: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """Run CPU tensors with these kernels, and networks step by step. The only other backend is plain PyTorch."""
    backend = dispatch.Backend("triton", ("cpu",))
    for op, run in kernels.items():
        backend.kernels[op] = dispatch.Kernel(run, takes_all)
    backend.kernels[NETWORK] = dispatch.Kernel(run_by_steps, takes_all, by_parts=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(dispatch._BACKENDS, "triton", backend)
        without = dispatch.Backend("cpu", ("cpu",), "disabled for this test")
        patch.setitem(dispatch._BACKENDS, "cpu", without)
        yield
