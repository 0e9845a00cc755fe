"""Runs an op with the CUDA kernels, in the host shim or on a GPU, and compares it with the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from cpu_kernels import in_float64, largest_sum, poisoned, run_reference, tensors
from effkernels import ops, use_backend
from host_shim import HostShim
from magnitudes import gate_magnitude
from op_cases import Squeeze, Window
from op_samples import labels
from tolerance import assert_within_eager

OPS = (
    "conv_bn_act",
    "depthwise_conv_bn_act",
    "depthwise_conv_bn_act_pool",
    "squeeze_excite_gate",
    "squeeze_excite",
)
# Of the samples of these ops.
LABELS = [label for label in labels() if label.startswith(OPS)]

Arguments = Mapping[str, Any]
Results = tuple[Tensor, ...]


class Runner(Protocol):
    """Computes `ops.<name>(**arguments)` with the CUDA kernels; tensors on the CPU on both sides."""

    def __call__(self, name: str, arguments: Arguments) -> Results: ...

    def private(self, name: str, flat: tuple[Any, ...]) -> Results:
        """The same of `torch.ops.effkernels_cuda.<name>`."""


class Shim:
    def __init__(self, shim: HostShim) -> None:
        self.shim = shim

    def __call__(self, name: str, arguments: Arguments) -> Results:
        # From this test's seed: which order of threads to run in.
        return self.shim.call("op", name, dict(arguments), int(torch.randint(2**31, ())))

    def private(self, name: str, flat: tuple[Any, ...]) -> Results:
        return self.shim.call("private", name, flat)


def to_gpu(value: Any) -> Any:
    """All tensors in there, with the strides and offsets that they have."""

    def move(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage().cuda()
        empty = torch.empty(0, dtype=tensor.dtype, device="cuda")
        return empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())

    return tree_map_only(Tensor, move, value)


class Gpu:
    def __call__(self, name: str, arguments: Arguments) -> Results:
        with poisoned(), use_backend("cuda", fallback=False):
            found = tensors(getattr(ops, name)(**to_gpu(dict(arguments))))
        return tuple(tensor.cpu() for tensor in found)

    def private(self, name: str, flat: tuple[Any, ...]) -> Results:
        with poisoned():
            found = tensors(getattr(torch.ops.effkernels_cuda, name)(*to_gpu(flat)))
        return tuple(tensor.cpu() for tensor in found)


def assert_matches(
    runner: Runner, name: str, arguments: Arguments, *, magnitude: float, depth: int
) -> None:
    """By the tolerance rule; see `tolerance.assert_within_eager`."""
    call = getattr(ops, name)
    exact, eager = run_reference(call, in_float64(arguments)), run_reference(call, arguments)
    actual = runner(name, arguments)
    assert len(actual) == len(exact)
    for ours, theirs, oracle in zip(actual, eager, exact, strict=True):
        assert_within_eager(ours, theirs, oracle, magnitude=magnitude, depth=depth)
        assert ours.stride() == theirs.stride() or 1 in ours.shape or not ours.numel()


def check_window(runner: Runner, case: Window) -> None:
    """A dense convolution; or a depthwise one, with and without the means."""
    arguments = case.arguments()
    call = ops.conv_bn_act if case.out_channels else ops.depthwise_conv_bn_act
    magnitude, depth = largest_sum(call, arguments), case.depth
    assert_matches(runner, call.__name__, arguments, magnitude=magnitude, depth=depth)
    if not case.out_channels:
        name, depth = "depthwise_conv_bn_act_pool", depth + case.pixels
        assert_matches(runner, name, arguments, magnitude=magnitude, depth=depth)


def check_squeeze(runner: Runner, case: Squeeze) -> None:
    """The gate, or the whole layer."""
    name = "squeeze_excite_gate" if case.size is None else "squeeze_excite"
    depth = case.channels + case.squeezed + 2
    magnitude = gate_magnitude(case)
    assert_matches(runner, name, case.arguments(), magnitude=magnitude, depth=depth)
