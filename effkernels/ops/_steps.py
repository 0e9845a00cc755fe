"""A network's inference pass as data: a sequence of op calls.

A model makes the steps. A backend may have one kernel for all of them, registered as ``NETWORK`` with
:func:`effkernels.dispatch.register_kernel`. It takes ``(x, tensors, network)``: the images, the tensors that
the steps refer to, and a :class:`Network`; 1x1 kernels are (C_out, C_in) or (C_out, C_in, 1, 1). It returns
the last step's result, or the list of the feature maps that are wanted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from effkernels.ops._define import defined

NETWORK = "network"
LINEAR = "linear"  # the classifier; the only step that is not an effkernels op


@functools.cache
def argument_names(op: str) -> tuple[str, ...]:
    """The arguments of an op after x, in the order of its schema."""
    if op == LINEAR:
        return ("weight", "bias")
    schema = getattr(torch.ops.effkernels, op).default._schema
    return tuple(argument.name for argument in schema.arguments[1:])


class Step(NamedTuple):
    """One op call.

    Attributes:
        op: an op of `effkernels.ops`, or ``LINEAR``: ``torch.nn.functional.linear`` in the dtype of ``weight``.
        tensors: argument name in the op's schema -> index among the network's tensors. Missing names are None.
        options: the arguments that are not tensors, by name.
    """

    op: str
    tensors: Mapping[str, int]
    options: Mapping[str, Any]

    def arguments(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """The op's arguments after x; ``tensors`` may also hold shapes, or anything else in place of tensors."""
        own, options = self.tensors, self.options
        return tuple(
            options[name] if name in options else tensors[own[name]] if name in own else None
            for name in argument_names(self.op)
        )


@dataclass(frozen=True, eq=False)
class Network:
    """The steps of a network for images of one height and width.

    Attributes:
        steps: each takes the result of the previous one. Only the first may take uint8 images.
        matrices: indices of the tensors that are kernels of 1x1 convolutions.
        maps: numbers of the steps whose feature maps are wanted, in the order in which they are returned. If there
            are any, the last step is one of them.
        prepared: what backends cache with it, by backend name.
    """

    steps: tuple[Step, ...]
    matrices: tuple[int, ...]
    maps: tuple[int, ...] = ()
    prepared: dict[str, Any] = field(default_factory=dict)

    def with_matrices(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors, with 1x1 kernels as matrices, as ops take them: views, valid for one pass."""
        views = list(tensors)
        for place in self.matrices:
            views[place] = views[place].flatten(1)
        return views


def linear(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The step ``LINEAR``."""
    return F.linear(features.to(weight.dtype), weight, bias)


def run_steps(x: Tensor, tensors: Sequence[Tensor], steps: Sequence[Step]) -> Tensor:
    """Run each step on the backend that takes it. ``tensors`` are those of :meth:`Network.with_matrices`."""
    # Steps run without gradients, so the dispatcher can skip the autograd kernel of each op.
    with torch._C._AutoDispatchBelowAutograd():
        for step in steps:
            run = linear if step.op == LINEAR else defined(step.op)
            x = run(x, *step.arguments(tensors))
    return x


def run_by_steps(x: Tensor, tensors: Sequence[Tensor], network: Network) -> Tensor | list[Tensor]:
    """For backends without a kernel for whole networks: one op call per step, without the Python code of layers."""
    tensors = network.with_matrices(tensors)
    if not network.maps:
        return run_steps(x, tensors, network.steps)
    found = run_for_maps(x, tensors, network)
    return [found[i] for i in network.maps]


def run_for_maps(x: Tensor, tensors: Sequence[Tensor], network: Network) -> dict[int, Tensor]:
    """Run each step; the maps that are wanted, by the number of their step. ``tensors`` as for :func:`run_steps`."""
    found: dict[int, Tensor] = {}
    for i, step in enumerate(network.steps):
        x = run_steps(x, tensors, (step,))
        if i in network.maps:
            found[i] = x
    return found


def traced(
    x: Tensor, tensors: Sequence[Tensor], network: Network
) -> Iterator[tuple[Step, Tensor, list[Tensor], Tensor]]:
    """Each step with its input, its tensors and its result, as shapes and dtypes from the fakes."""
    tensors = network.with_matrices(tensors)
    for step in network.steps:
        arguments = step.arguments(tensors)
        if step.op == LINEAR:
            weight: Tensor = arguments[0]
            y = x.new_empty(x.shape[0], weight.shape[0], dtype=weight.dtype)
        else:
            y = defined(step.op).fake(x, *arguments)
        yield step, x, [a for a in arguments if isinstance(a, Tensor)], y
        x = y


def step_flops(step: Step, x: Sequence[int], shapes: Sequence[Sequence[int]]) -> int:
    """FLOPs of one step (two per multiply-add), from the shapes of its input and of all tensors (1x1 as matrices)."""
    if step.op == LINEAR:
        classes, features = shapes[step.tensors["weight"]]
        return 2 * x[0] * classes * features
    return defined(step.op).flops(x, *step.arguments(shapes))
