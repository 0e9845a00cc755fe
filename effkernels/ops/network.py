"""A whole classifier as one op: for backends where calling each layer's op costs time.

It has no public form: layers called one after the other compute the same. A backend registers its own op of
this contract; a model that finds none runs layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from effkernels.ops._define import Op, declare, defined
from effkernels.reference.elementwise import ACTIVATIONS

# The last two, or the first of these alone, come at the end.
STEPS = ("conv_bn_act", "mbconv", "pointwise_conv_bn_act_pool", "linear")
_ACTIVATIONS = tuple(ACTIVATIONS)
# Of each step: which op, which of its tensors there are (a bit each), activation, stride, padding, dilation, residual.
NUMBERS = 12
_TENSORS = {"conv_bn_act": 8, "mbconv": 22, "pointwise_conv_bn_act_pool": 6, "linear": 2}
# Which of them are 1x1 kernels: (C_out, C_in) or (C_out, C_in, 1, 1).
_MATRICES = {
    "conv_bn_act": (),
    "mbconv": (0, 12, 14, 16),
    "pointwise_conv_bn_act_pool": (0,),
    "linear": (),
}


class Step(NamedTuple):
    """One op of the network: the tensors of its schema behind x, in order, and the rest of its arguments.

    Only the first step may take uint8 images, as "conv_bn_act".

    "linear" is ``torch.nn.functional.linear`` of the pooled features, as weight's dtype.
    """

    op: str
    tensors: Sequence[Any]
    eps: tuple[float, ...] = ()
    activation: str = "identity"
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    residual: bool = False

    def numbers(self) -> tuple[int, ...]:
        """Its place in the op's list of numbers."""
        mask = sum(1 << i for i, tensor in enumerate(self.tensors) if tensor is not None)
        first = (STEPS.index(self.op), mask, _ACTIVATIONS.index(self.activation))
        return (*first, *self.stride, *self.padding, *self.dilation, int(self.residual))

    def arguments(self) -> tuple[Any, ...]:
        """The arguments of the step's own op behind x."""
        t, eps = tuple(self.tensors), self.eps
        window = (list(self.stride), list(self.padding))
        if self.op == "conv_bn_act":
            return *t[:6], eps[0], *window, list(self.dilation), self.activation, *t[6:]
        if self.op == "pointwise_conv_bn_act_pool":
            return *t, eps[0], self.activation
        norms = (*t[:6], eps[0], *t[6:12], eps[1], *t[12:16], *t[16:22], eps[2])
        return *norms, *window, self.residual, self.activation


def encode(steps: Sequence[Step]) -> tuple[list[Any], list[int], list[float]]:
    """The op's arguments behind x."""
    tensors = [t for step in steps for t in step.tensors if t is not None]
    numbers = [number for step in steps for number in step.numbers()]
    return tensors, numbers, [e for step in steps for e in (*step.eps, 0.0, 0.0, 0.0)[:3]]


def decode(
    tensors: Sequence[Tensor], numbers: Sequence[int], eps: Sequence[float]
) -> Iterator[Step]:
    """The steps of :func:`encode`, 1x1 kernels as matrices."""
    remaining = iter(tensors)
    for i in range(0, len(numbers), NUMBERS):
        op, mask, activation, *rest = numbers[i : i + NUMBERS]
        name = STEPS[op]
        own: list[Any] = [
            next(remaining) if mask >> bit & 1 else None for bit in range(_TENSORS[name])
        ]
        for place in _MATRICES[name]:
            if own[place] is not None:
                own[place] = own[place].flatten(1)
        first = i // NUMBERS * 3
        window = (rest[0], rest[1]), (rest[2], rest[3], rest[4], rest[5]), (rest[6], rest[7])
        norms = tuple(eps[first : first + 3])
        yield Step(name, own, norms, _ACTIVATIONS[activation], *window, bool(rest[8]))


def _run(
    compute: Callable[[Op], Callable[..., Tensor]], x: Tensor, arguments: Sequence[Any]
) -> Tensor:
    for step in decode(*arguments):
        if step.op == "linear":
            weight, bias = step.tensors
            x = F.linear(x.to(weight.dtype), weight, bias)
        else:
            x = compute(defined(step.op))(x, *step.arguments())
    return x


def _reference(x: Tensor, *arguments: Any) -> Tensor:
    return _run(lambda op: op.reference, x, arguments)


def by_steps(x: Tensor, *arguments: Any) -> Tensor:
    """The op by those of its steps, each on the backend that takes it: without the layers' Python around them.

    For backends that have kernels of the steps alone. On a GPU a small batch waits for Python.
    """
    # No gradient is wanted where this op runs: the dispatcher need not ask each step's formula for it.
    with torch._C._AutoDispatchBelowAutograd():
        return _run(lambda op: op, x, arguments)


def walk(x: Tensor, *arguments: Any) -> Iterator[tuple[Step, Tensor, Tensor]]:
    """Each step with what it takes and makes, from the op's arguments: shapes and dtypes, as fakes give them."""
    for step in decode(*arguments):
        if step.op == "linear":
            weight = step.tensors[0]
            y = x.new_empty(x.shape[0], weight.shape[0], dtype=weight.dtype)
        else:
            y = defined(step.op).fake(x, *step.arguments())
        yield step, x, y
        x = y


def _fake(x: Tensor, *arguments: Any) -> Tensor:
    for _, _, y in walk(x, *arguments):
        x = y
    return x


def step_flops(step: Step, x: Sequence[int]) -> int:
    """Two per multiply-add of one step; ``x`` is the shape of what it takes."""
    shapes: list[Any] = [None if tensor is None else tensor.shape for tensor in step.tensors]
    if step.op == "linear":
        return int(2 * x[0] * shapes[0].numel())
    return defined(step.op).flops(x, *step._replace(tensors=shapes).arguments())


def _flops(x: Any, tensors: Any, numbers: Sequence[int], eps: Sequence[float]) -> int:
    images, *weights = (torch.empty(shape, device="meta") for shape in (x, *tensors))
    steps = walk(images, weights, numbers, eps)
    return sum(step_flops(step, before.shape) for step, before, _ in steps)


NETWORK = declare(
    Op(
        "network",
        "(Tensor x, Tensor[] tensors, int[] numbers, float[] eps) -> Tensor",
        _reference,
        _fake,
        _flops,
        differentiable=False,
    )
)
