"""The CUDA kernels in the host shim; `parity` compares them with the reference."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from host_shim import HostShim
from parity import Arguments, Results, Runner
from specs.samples import labels

OPS = (
    "conv_bn_act",
    "depthwise_conv_bn_act",
    "depthwise_conv_bn_act_pool",
    "expand_depthwise_conv_bn_act",
    "expand_depthwise_conv_bn_act_pool",
    "pointwise_conv_bn_act",
    "pointwise_conv_bn_act_pool",
    "pointwise_conv_bn_act_squeeze",
    "squeeze_excite_gate",
    "squeeze_excite",
    "mbconv",
)
# Of the samples of these ops.
LABELS = [label for label in labels() if label.startswith(OPS)]


class Shim:
    def __init__(self, shim: HostShim) -> None:
        self.shim = shim

    def __call__(self, name: str, arguments: Arguments) -> Results:
        # The order of threads follows from this test's seed.
        return self.shim.call("op", name, dict(arguments), int(torch.randint(2**31, ())))

    def private(self, name: str, flat: tuple[Any, ...]) -> Results:
        return self.shim.call("private", name, flat)

    def network(self, model: nn.Module, x: Tensor) -> tuple[Tensor, list[str]]:
        found: tuple[Tensor, list[str]] = self.shim.call("network", model, x)
        return found


@contextmanager
def variable(runner: Runner, name: str, value: str) -> Iterator[None]:
    """Has a variable of the environment where the kernels run, inside of the block."""
    if isinstance(runner, Shim):
        runner.shim.call("environment", name, value)
        try:
            yield
        finally:
            runner.shim.call("environment", name, None)
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def channels_apart(runner: Runner) -> AbstractContextManager[None]:
    """NaN and infinities of one channel reach no other inside of the block."""
    return variable(runner, "EFFKERNELS_CHANNELS_APART", "1")


@contextmanager
def expanding_in_one_kernel(runner: Runner, multiprocessors: int = 3) -> Iterator[None]:
    """Expand and depthwise are one kernel wherever there is one; in the shim on a device with enough shared memory."""
    with variable(runner, "EFFKERNELS_EXPAND_DEPTHWISE", "one"):
        if not isinstance(runner, Shim):
            yield
            return
        runner.shim.call("device", multiprocessors, 227 * 1024)
        try:
            yield
        finally:
            runner.shim.call("device")
