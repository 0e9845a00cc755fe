"""A network's inference pass as data: the ops that it calls, one after the other.

A model makes the steps; a backend may have a kernel for all of them together, registered as ``NETWORK`` with
:func:`effkernels.dispatch.register_kernel`. It takes ``(x, tensors, network)``: the images, the tensors that
the steps refer to, and a :class:`Network`; 1x1 kernels come as (C_out, C_in) or (C_out, C_in, 1, 1).
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
LINEAR = "linear"  # of the pooled features; the one step that is no op of effkernels


@functools.cache
def argument_names(op: str) -> tuple[str, ...]:
    """The arguments of an op behind x, in the order of its schema."""
    if op == LINEAR:
        return ("weight", "bias")
    schema = getattr(torch.ops.effkernels, op).default._schema
    return tuple(argument.name for argument in schema.arguments[1:])


class Step(NamedTuple):
    """One call.

    Attributes:
        op: of `effkernels.ops`, or ``LINEAR``: ``torch.nn.functional.linear`` in the dtype of ``weight``.
        tensors: which of the network's tensors an argument is, by its name in the op's schema. Those that are
            not named are None.
        options: the arguments that are no tensors, by name.
    """

    op: str
    tensors: Mapping[str, int]
    options: Mapping[str, Any]

    def arguments(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """The op's arguments behind x; ``tensors`` may also hold shapes, or whatever stands for a tensor."""
        own, options = self.tensors, self.options
        return tuple(
            options[name] if name in options else tensors[own[name]] if name in own else None
            for name in argument_names(self.op)
        )


@dataclass(frozen=True, eq=False)
class Network:
    """The steps of a network for images of one height and width.

    Attributes:
        steps: each takes the result of the one before. Only the first may take uint8 images.
        matrices: which tensors are the kernels of 1x1 convolutions.
        prepared: what backends keep with it, by their names.
    """

    steps: tuple[Step, ...]
    matrices: tuple[int, ...]
    prepared: dict[str, Any] = field(default_factory=dict)

    def with_matrices(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors with 1x1 kernels as matrices, as ops take them: views, which are good for one pass."""
        views = list(tensors)
        for place in self.matrices:
            views[place] = views[place].flatten(1)
        return views


def linear(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The step ``LINEAR``."""
    return F.linear(features.to(weight.dtype), weight, bias)


def run_steps(x: Tensor, tensors: Sequence[Tensor], steps: Sequence[Step]) -> Tensor:
    """Each step on the backend that takes it. ``tensors`` are :meth:`Network.with_matrices`."""
    # No gradient is wanted where steps run: the dispatcher need not ask each op's formula for it.
    with torch._C._AutoDispatchBelowAutograd():
        for step in steps:
            run = linear if step.op == LINEAR else defined(step.op)
            x = run(x, *step.arguments(tensors))
    return x


def run_by_steps(x: Tensor, tensors: Sequence[Tensor], network: Network) -> Tensor:
    """For backends without a kernel for whole networks: one op call a step, without the layers' Python between them."""
    return run_steps(x, network.with_matrices(tensors), network.steps)


def traced(
    x: Tensor, tensors: Sequence[Tensor], network: Network
) -> Iterator[tuple[Step, Tensor, list[Tensor], Tensor]]:
    """Each step with what it takes, its tensors and what it makes: shapes and dtypes, as fakes give them."""
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
    """Two per multiply-add of one step, from the shape of what it takes and those of all tensors, as matrices."""
    if step.op == LINEAR:
        classes, features = shapes[step.tensors["weight"]]
        return 2 * x[0] * classes * features
    return defined(step.op).flops(x, *step.arguments(shapes))
