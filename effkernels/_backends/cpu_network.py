"""Networks on the cpu backend: a plan's steps as flat arguments of one C++ op, prepared once per image size."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effkernels._backends.compiled import cpu_module
from effkernels._backends.network_layout import ACTIVATIONS, EPS, MOST_EPS, NUMBERS, STEPS
from effkernels.ops._define import Op, declare, define_private
from effkernels.ops._steps import (
    LINEAR,
    NETWORK,
    Network,
    Step,
    argument_names,
    run_by_steps,
    step_flops,
    traced,
)

_SCHEMA = "(Tensor x, Tensor[] tensors, int[] numbers, float[] eps) -> Tensor"
_HELD = "network_held"
_HELD_SCHEMA = "(Tensor x, int network) -> Tensor"
_HOLD_SCHEMA = "hold(Tensor[] tensors, int[] numbers, float[] eps) -> int"
_library = torch.library.Library("effkernels_cpu", "FRAGMENT")  # type: ignore[no-untyped-call]
_KINDS = tuple(STEPS)
_KEY = "cpu"  # in Network.prepared
# Options of several integers, and the suffixes of their names in the layout.
_SEVERAL = {
    "stride": ("vertical", "horizontal"),
    "padding": ("top", "bottom", "left", "right"),
    "dilation": ("vertical", "horizontal"),
}
_MATRICES = {
    "mbconv": ("expand_weight", "se_reduce_weight", "se_expand_weight", "project_weight"),
    "pointwise_conv_bn_act_pool": ("weight",),
}


@dataclass(frozen=True)
class Flat:
    """A network as the C++ op takes it: the indices of its tensors, in order, and the numbers of all steps."""

    tensors: tuple[int, ...]
    numbers: list[int]
    eps: list[float]


def flatten(network: Network) -> Flat:
    """The steps of a network in the layout of :mod:`effkernels._backends.network_layout`."""
    tensors: list[int] = []
    numbers: list[int] = []
    eps: list[float] = []
    for step in network.steps:
        own = [step.tensors.get(name) for name in STEPS[step.op]]
        tensors += [place for place in own if place is not None]
        values = dict.fromkeys(NUMBERS, 0)
        values["kind"] = _KINDS.index(step.op)
        values["present"] = sum(1 << i for i, place in enumerate(own) if place is not None)
        for option, value in step.options.items():
            if option in _SEVERAL:
                ends = _SEVERAL[option]
                values |= {f"{option}_{end}": n for end, n in zip(ends, value, strict=True)}
            elif option == "activation":
                values[option] = ACTIVATIONS.index(value)
            elif option not in EPS[step.op]:
                values[option] = int(value)
        numbers += [values[name] for name in NUMBERS]
        own_eps = [step.options[name] for name in EPS[step.op]]
        eps += own_eps + [0.0] * (MOST_EPS - len(own_eps))
    return Flat(tuple(tensors), numbers, eps)


def run_network(x: Tensor, tensors: Sequence[Tensor], network: Network) -> Tensor:
    """Runs a whole network as one call: this backend's kernel for `NETWORK`."""
    flat = _flat(network)
    given = list(map(tensors.__getitem__, flat.tensors))
    y: Tensor = torch.ops.effkernels_cpu.network.default(x, given, flat.numbers, flat.eps)
    return y


def _flat(network: Network) -> Flat:
    flat: Flat | None = network.prepared.get(_KEY)
    if flat is None:
        flat = network.prepared[_KEY] = flatten(network)
    return flat


def hold(tensors: Sequence[Tensor], numbers: Sequence[int], eps: Sequence[float]) -> Any:
    """Let C++ hold tensors, and the numbers of a network of them, as long as the result lives."""
    module = cpu_module()
    assert module is not None
    with torch._C._AutoDispatchBelowAutograd():  # taking is no operation on them
        number = torch.ops.effkernels_cpu.hold.default(list(tensors), list(numbers), list(eps))
    return module.Holder(number)


class HeldNetwork:
    """A network whose tensors C++ holds: called with images alone, from any thread.

    The op is given a number in the place of hundreds of tensors. It reads the memory of those that it holds at each
    call, so it sees what is written into them or put in its place. Who calls has to know that they are still the
    model's, and of the same shapes. No gradient is taken.
    """

    def __init__(self, tensors: Sequence[Tensor], network: Network) -> None:
        flat = _flat(network)
        self.tensors = [tensors[place] for place in flat.tensors]
        self.numbers, self.eps = flat.numbers, flat.eps
        self.holder = hold(self.tensors, flat.numbers, flat.eps)
        self._number = self.holder.number
        self._op = torch.ops.effkernels_cpu.network_held.default
        _held[self._number] = self

    def __call__(self, x: Tensor) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            y: Tensor = self._op(x, self._number)
        return y


_held: weakref.WeakValueDictionary[int, HeldNetwork] = weakref.WeakValueDictionary()


def bind_network(tensors: Sequence[Tensor], network: Network) -> Callable[[Tensor], Tensor] | None:
    """The kernel of networks for calls with these tensors; None where a mode of PyTorch's would see the numbers."""
    if torch._C._len_torch_dispatch_stack():
        return None
    return HeldNetwork(tensors, network)


def unflatten(numbers: Sequence[int], eps: Sequence[float]) -> Network:
    """The inverse of :func:`flatten`, with tensors in the op's order: for the op's reference, fake and FLOPs."""
    steps: list[Step] = []
    matrices: list[int] = []
    used = 0
    for i in range(len(numbers) // len(NUMBERS)):
        values = dict(zip(NUMBERS, numbers[i * len(NUMBERS) :], strict=False))
        op = _KINDS[values["kind"]]
        names = [name for bit, name in enumerate(STEPS[op]) if values["present"] >> bit & 1]
        own = {name: used + n for n, name in enumerate(names)}
        used += len(names)
        matrices += [own[name] for name in _MATRICES.get(op, ()) if name in own]
        options: dict[str, Any] = dict(zip(EPS[op], eps[i * MOST_EPS :], strict=False))
        for name in argument_names(op):
            if name in _SEVERAL:
                options[name] = [values[f"{name}_{end}"] for end in _SEVERAL[name]]
            elif name == "activation":
                options[name] = ACTIVATIONS[values[name]]
            elif name == "residual" and op == "mbconv":
                options[name] = bool(values[name])
        steps.append(Step(op, own, options))
    return Network(tuple(steps), tuple(matrices))


def define_network() -> None:
    """Define ``torch.ops.effkernels_cpu.network`` and ``network_held``, which `effkernels._C` computes.

    The one takes all tensors and may stand in graphs; the other a number, which means nothing in another process.
    """
    declare(Op(NETWORK, _SCHEMA, _reference, _fake, _flops, differentiable=False))
    define_private(NETWORK, "cpu")
    _library.define(_HOLD_SCHEMA)  # type: ignore[no-untyped-call]
    declare(Op(_HELD, _HELD_SCHEMA, _held_reference, _held_fake, _held_flops, differentiable=False))
    define_private(_HELD, "cpu")


def _reference(
    x: Tensor, tensors: list[Tensor], numbers: Sequence[int], eps: Sequence[float]
) -> Tensor:
    return run_by_steps(x, tensors, unflatten(numbers, eps))


def _fake(x: Tensor, tensors: list[Tensor], numbers: Sequence[int], eps: Sequence[float]) -> Tensor:
    for *_, y in traced(x, tensors, unflatten(numbers, eps)):
        x = y
    return x


def _flops(x: Any, tensors: Any, numbers: Sequence[int], eps: Sequence[float]) -> int:
    images, *weights = (torch.empty(shape, device="meta") for shape in (x, *tensors))
    network = unflatten(numbers, eps)
    shapes = [tensor.shape for tensor in network.with_matrices(weights)]
    steps = traced(images, weights, network)
    return sum(step_flops(step, before.shape, shapes) for step, before, _, _ in steps)


def _arguments(number: int) -> tuple[list[Tensor], list[int], list[float]]:
    """What the other op would be given."""
    held = _held.get(number)
    if held is None:
        raise ValueError(f"{_HELD}: no network is held by the number {number}")
    return held.tensors, held.numbers, held.eps


def _held_reference(x: Tensor, network: int) -> Tensor:
    return _reference(x, *_arguments(network))


def _held_fake(x: Tensor, network: int) -> Tensor:
    # What is held is real, and nothing to compute with here.
    tensors, numbers, eps = _arguments(network)
    last = unflatten(numbers, eps).steps[-1]
    weight = tensors[last.tensors["weight"]]
    dtype = weight.dtype if last.op == LINEAR else torch.float32
    return x.new_empty(x.shape[0], weight.shape[0], dtype=dtype)


def _held_flops(x: Any, network: int) -> int:
    tensors, numbers, eps = _arguments(network)
    return _flops(x, [tensor.shape for tensor in tensors], numbers, eps)
