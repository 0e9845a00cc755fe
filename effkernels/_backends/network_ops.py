"""Networks as one C++ op of a compiled backend: a plan's steps as flat arguments, prepared once per image size.

Each backend with such an op has it in four forms. ``network`` returns vectors, logits or features, and
``network_maps`` the feature maps of some steps. They take all tensors, and may stand in graphs; ``network_held`` and
``network_maps_held`` take a number, by which C++ refers to tensors that it holds, and which means nothing in another
process.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from effkernels._backends.network_layout import ACTIVATIONS, EPS, MOST_EPS, NUMBERS, STEPS
from effkernels.ops._define import Op, declare, define_private
from effkernels.ops._steps import (
    NETWORK,
    Network,
    Step,
    argument_names,
    run_by_steps,
    step_flops,
    traced,
)

_MAPS = "network_maps"
_RESULTS = {NETWORK: "Tensor", _MAPS: "Tensor[]"}
_GIVEN_SCHEMA = "(Tensor x, Tensor[] tensors, int[] numbers, float[] eps) -> "
_HELD_SCHEMA = "(Tensor x, int network) -> "
_KINDS = tuple(STEPS)
_KEY = "flat"  # in Network.prepared
# Options of several integers, and the suffixes of their names in the layout.
_SEVERAL = {
    "stride": ("vertical", "horizontal"),
    "padding": ("top", "bottom", "left", "right"),
    "dilation": ("vertical", "horizontal"),
}
_MATRICES = {
    "mbconv": ("expand_weight", "se_reduce_weight", "se_expand_weight", "project_weight"),
    "pointwise_conv_bn_act_pool": ("weight",),
    "pointwise_conv_bn_act": ("weight",),
}


@dataclass(frozen=True)
class Flat:
    """A network as the C++ op takes it.

    Attributes:
        tensors: their indices, in order.
        numbers, eps: of all steps.
        maps: which of the maps that the op returns, in the order of the steps, the network returns, in its own order;
            None if its result is no list of maps.
    """

    tensors: tuple[int, ...]
    numbers: list[int]
    eps: list[float]
    maps: list[int] | None


def flatten(network: Network) -> Flat:
    """The steps of a network in the layout of :mod:`effkernels._backends.network_layout`."""
    tensors: list[int] = []
    numbers: list[int] = []
    eps: list[float] = []
    for number, step in enumerate(network.steps):
        own = [step.tensors.get(name) for name in STEPS[step.op]]
        tensors += [place for place in own if place is not None]
        values = dict.fromkeys(NUMBERS, 0)
        values["kind"] = _KINDS.index(step.op)
        values["present"] = sum(1 << i for i, place in enumerate(own) if place is not None)
        values["returned"] = int(number in network.maps)
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
    made = sorted(set(network.maps))
    maps = list(map(made.index, network.maps)) if made else None
    return Flat(tuple(tensors), numbers, eps, maps)


def flat_of(network: Network) -> Flat:
    """The network's layout, which is kept with it."""
    flat: Flat | None = network.prepared.get(_KEY)
    if flat is None:
        flat = network.prepared[_KEY] = flatten(network)
    return flat


def unflatten(numbers: Sequence[int], eps: Sequence[float]) -> Network:
    """The inverse of :func:`flatten`, with tensors in the op's order: for the op's reference, fake and FLOPs."""
    steps: list[Step] = []
    matrices: list[int] = []
    maps: list[int] = []
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
        if values["returned"]:
            maps.append(i)
    return Network(tuple(steps), tuple(matrices), tuple(maps))


def _reference(
    x: Tensor, tensors: list[Tensor], numbers: Sequence[int], eps: Sequence[float]
) -> Tensor | list[Tensor]:
    return run_by_steps(x, tensors, unflatten(numbers, eps))


def _fake(
    x: Tensor, tensors: list[Tensor], numbers: Sequence[int], eps: Sequence[float]
) -> Tensor | list[Tensor]:
    network = unflatten(numbers, eps)
    made = [y for *_, y in traced(x, tensors, network)]
    return [made[i] for i in network.maps] if network.maps else made[-1]


def _flops(x: Any, tensors: Any, numbers: Sequence[int], eps: Sequence[float]) -> int:
    images, *weights = (torch.empty(shape, device="meta") for shape in (x, *tensors))
    network = unflatten(numbers, eps)
    shapes = [tensor.shape for tensor in network.with_matrices(weights)]
    steps = traced(images, weights, network)
    return sum(step_flops(step, before.shape, shapes) for step, before, _, _ in steps)


class Holder(Protocol):
    """Keeps tensors held by C++ as long as it lives."""

    @property
    def number(self) -> int:
        """How ops refer to them."""


Hold = Callable[[Sequence[Tensor], Sequence[int], Sequence[float]], Holder]


class HeldNetwork:
    """A network whose tensors C++ holds: called with images alone, from any thread.

    The op is given a number in the place of hundreds of tensors. It reads the memory of those that it holds at each
    call, so it sees what is written into them or put in its place. Who calls has to know that they are still the
    model's, and of the same shapes. No gradient is taken.
    """

    def __init__(self, ops: NetworkOps, tensors: Sequence[Tensor], network: Network) -> None:
        flat = flat_of(network)
        self.tensors = [tensors[place] for place in flat.tensors]
        self.numbers, self.eps = flat.numbers, flat.eps
        self._maps = flat.maps
        self.holder = ops.hold(self.tensors, flat.numbers, flat.eps)
        self._number = self.holder.number
        self._op = ops.by_number[NETWORK if flat.maps is None else _MAPS]
        ops.held[self._number] = self

    def __call__(self, x: Tensor) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            y = self._op(x, self._number)
        return y if self._maps is None else [y[i] for i in self._maps]


class NetworkOps:
    """The ops of a backend, whose compiled module implements them: :meth:`run` and :meth:`bind` are its kernel.

    Args:
        backend: its name.
        hold: lets the module hold tensors.
    """

    def __init__(self, backend: str, hold: Hold) -> None:
        self.hold = hold
        OPS[backend] = self
        self.held: weakref.WeakValueDictionary[int, HeldNetwork] = weakref.WeakValueDictionary()
        given = (_reference, _fake, _flops)
        by_number = (self._held_reference, self._held_fake, self._held_flops)
        self.by_number: dict[str, Callable[..., Any]] = {}
        for name, results in _RESULTS.items():
            declare(Op(name, _GIVEN_SCHEMA + results, *given, differentiable=False))
            define_private(name, backend)
            held = f"{name}_held"
            declare(Op(held, _HELD_SCHEMA + results, *by_number, differentiable=False))
            self.by_number[name] = define_private(held, backend)
        own = getattr(torch.ops, f"effkernels_{backend}")
        self._packet, self._packet_of_maps = getattr(own, NETWORK), getattr(own, _MAPS)

    def run(self, x: Tensor, tensors: Sequence[Tensor], network: Network) -> Any:
        """Run a whole network as one call: this backend's kernel for `NETWORK`."""
        flat = flat_of(network)
        given = list(map(tensors.__getitem__, flat.tensors))
        if flat.maps is None:
            return self._packet.default(x, given, flat.numbers, flat.eps)
        made = self._packet_of_maps.default(x, given, flat.numbers, flat.eps)
        return [made[i] for i in flat.maps]

    def bind(self, tensors: Sequence[Tensor], network: Network) -> Callable[[Tensor], Any] | None:
        """The kernel for calls with these tensors; None where a mode of PyTorch's would see the numbers."""
        if torch._C._len_torch_dispatch_stack():
            return None
        return HeldNetwork(self, tensors, network)

    def _arguments(self, number: int) -> tuple[list[Tensor], list[int], list[float]]:
        """What the other op would be given."""
        held = self.held.get(number)
        if held is None:
            raise ValueError(f"network_held: no network is held by the number {number}")
        return held.tensors, held.numbers, held.eps

    def _held_reference(self, x: Tensor, network: int) -> Tensor | list[Tensor]:
        return _reference(x, *self._arguments(network))

    def _held_fake(self, x: Tensor, network: int) -> Tensor | list[Tensor]:
        tensors, numbers, eps = self._arguments(network)
        # What is held is real, and nothing to compute with here.
        fakes = [x.new_empty(tensor.shape, dtype=tensor.dtype) for tensor in tensors]
        return _fake(x, fakes, numbers, eps)

    def _held_flops(self, x: Any, network: int) -> int:
        tensors, numbers, eps = self._arguments(network)
        return _flops(x, [tensor.shape for tensor in tensors], numbers, eps)


OPS: dict[str, NetworkOps] = {}
"""By backend, those that are defined."""
