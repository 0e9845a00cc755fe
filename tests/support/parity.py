"""Runs an op with a GPU backend's kernels, on a GPU or without one, and compares the result with the reference."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from cpu_kernels import poisoned
from effkernels import ops, use_backend
from networks import assert_logits, run_network, tiny
from specs.case import Case, Check
from specs.oracle import Arguments, Results, in_float64, run_reference, tensors, threads
from specs.oracle_convolutions import OracleConvolutions
from specs.samples import labels, samples
from specs.tolerance import assert_within_eager


class Runner(Protocol):
    """Computes `ops.<name>(**arguments)` with a backend's kernels; arguments and results are on the CPU."""

    def __call__(self, name: str, arguments: Arguments) -> Results: ...

    def private(self, name: str, flat: tuple[Any, ...]) -> Results:
        """The same of `torch.ops.effkernels_<backend>.<name>`."""

    def network(self, model: nn.Module, x: Tensor) -> tuple[Tensor, list[str]]:
        """The result of a model for `x`, and "op on backend" for each call."""


def to_gpu(value: Any) -> Any:
    """``value`` with all its tensors on the GPU, with their strides and offsets."""

    def move(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage().cuda()
        empty = torch.empty(0, dtype=tensor.dtype, device="cuda")
        return empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())

    return tree_map_only(Tensor, move, value)


def to_device(values: tuple[Any, ...], device: str) -> tuple[Any, ...]:
    """Uninitialised tensors with the same sizes and strides on ``device``."""
    return tuple(
        torch.empty_strided(v.shape, v.stride(), dtype=v.dtype, device=device)
        if isinstance(v, Tensor)
        else v
        for v in values
    )


class Gpu:
    """Runs on the first GPU, every call within the context that ``around`` makes."""

    def __init__(
        self, backend: str, around: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self.backend, self.around = backend, around

    def __call__(self, name: str, arguments: Arguments) -> Results:
        with (
            poisoned(),
            use_backend(self.backend, fallback=False),
            self.around(),
        ):
            found = tensors(getattr(ops, name)(**to_gpu(dict(arguments))))
        return tuple(tensor.cpu() for tensor in found)

    def private(self, name: str, flat: tuple[Any, ...]) -> Results:
        with poisoned(), self.around():
            private = getattr(torch.ops, f"effkernels_{self.backend}")
            found = tensors(getattr(private, name)(*to_gpu(flat)))
        return tuple(tensor.cpu() for tensor in found)

    def network(self, model: nn.Module, x: Tensor) -> tuple[Tensor, list[str]]:
        with poisoned(), use_backend(self.backend), self.around():
            y, calls = run_network(copy.deepcopy(model).cuda(), x.cuda())
        return y.cpu(), calls


def check(runner: Runner, case: Case) -> None:
    """Check the case's ops by the tolerance rule."""
    for one in case.checks():
        assert_matches(runner, one)


def assert_matches(runner: Runner, check: Check) -> None:
    """By the tolerance rule; see `specs.tolerance`.

    ``rounded`` is smaller for means of a map than for the map, because roundings of its pixels go up as often as
    down. Three standard deviations of such a mean, with each rounding anywhere within half a unit, are
    sqrt(3 / pixels) of it.
    """
    call = getattr(ops, check.op)
    exact = run_reference(call, in_float64(check.arguments))
    eager = run_reference(call, check.arguments)
    actual = runner(check.op, check.arguments)
    assert len(actual) == len(exact)
    pixels = exact[0].shape[2:].numel() if check.rounded else 1
    of_means = check.rounded * min(1.0, math.sqrt(3 / pixels)) if pixels else 0.0
    for ours, theirs, oracle in zip(actual, eager, exact, strict=True):
        assert_within_eager(
            ours,
            theirs,
            oracle,
            magnitude=check.magnitude,
            depth=check.depth,
            rounded=check.rounded if ours.dim() == 4 else of_means,
        )
        assert ours.stride() == theirs.stride() or 1 in ours.shape or not ours.numel()


def check_padding(run: Callable[[str, Arguments], Results], dtype: torch.dtype) -> None:
    """Pixels equal to the mean become zeros, like the padding next to them."""
    mean, std = torch.tensor([7.0, 128.0, 255.0]), torch.tensor([50.0, 60.0, 70.0])
    x = mean.byte()[None, :, None, None].expand(2, 3, 5, 6)
    for images in (x.contiguous(), x.contiguous(memory_format=torch.channels_last)):
        arguments = {"weight": torch.randn(9, 3, 3, 3).to(dtype), "padding": 2, "stride": 2}
        arguments |= {"x": images, "mean": mean, "std": std, "activation": "identity"}
        (y,) = run("conv_bn_act", arguments)
        assert y.dtype == dtype
        assert torch.equal(y, torch.zeros(2, 9, 4, 4, dtype=dtype))


def check_network(
    runner: Runner, name: str, dtype: torch.dtype, *, uint8: bool = False
) -> list[str]:
    """Check a whole network with few channels; returns "op on backend" for each call."""
    model, x = tiny(name).to(dtype), torch.randn(2, 3, 33, 40).to(dtype)
    if uint8:
        x = torch.randint(256, x.shape, dtype=torch.uint8)
    with threads(1), use_backend("torch"), OracleConvolutions():
        eager = model(x)
    actual, calls = runner.network(model, x)
    assert_logits(actual, eager, model, x)
    return calls


def check_any_strides(runner: Runner, label: str, dtype: torch.dtype) -> None:
    """A private op gives bitwise equal results for maps with any strides."""
    case = samples(dtype)[labels().index(label)]
    maps = [i for i, a in enumerate(case.flat) if isinstance(a, Tensor) and a.dim() == 4 and i != 1]
    found = []
    for strided in (
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t.contiguous(),
        lambda t: torch.stack((t, t + 1), -1)[..., 0],
        lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        flat = tuple(strided(a) if i in maps else a for i, a in enumerate(case.flat))
        found.append(runner.private(case.name, flat))
    for other in found[1:]:
        for ours, same in zip(other, found[0], strict=True):
            assert torch.equal(ours, same)
            assert ours.stride() == same.stride()


def check_activation(runner: Runner, activation: str) -> None:
    """Check an activation for each sign separately, and for values that are not finite."""
    ends = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, 88.7, -88.7, 3e38, -3e38])
    for x in (torch.linspace(-20, 0, 1024), torch.linspace(0, 20, 1024), ends):
        arguments = {
            "x": x.view(1, 8, 1, -1),
            "weight": torch.ones(8, 1, 1, 1),
            "activation": activation,
        }
        finite = x[x.isfinite()].abs().max().item() if x is not ends else 1.0
        assert_matches(runner, Check("depthwise_conv_bn_act", arguments, finite, depth=1))
