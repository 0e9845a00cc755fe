"""Why backends refuse arguments: one small function per reason. Each backend lists the functions for each op.

Such a function takes an op's arguments by name, and returns the reason for refusing them, or None. They run at every
call, so they must be cheap; torch.compile traces them.
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from effkernels.dispatch import KERNEL_DTYPES
from effkernels.ops._steps import LINEAR, Network
from effkernels.ops.conv_bn_act import ConvArguments
from effkernels.ops.mbconv import MbconvArguments
from effkernels.ops.pointwise_conv_bn_act import PointwiseArguments
from effkernels.ops.squeeze_excite_gate import GateArguments

Limit = Callable[[Any], "str | None"]
Refusal = Callable[..., "str | None"]
"""Takes the arguments of an op's schema, flat; passed to :func:`effkernels.dispatch.register_kernel`."""

CAPABILITY = (8, 0)  # the oldest GPUs that device code is built for: older ones lack bfloat16


class KernelLimits(NamedTuple):
    """The most that compiled kernels take. What a module does not state, it does not limit."""

    kernel_rows: int = sys.maxsize
    """Rows of a convolution's kernel."""
    conv_terms: int = sys.maxsize
    """Terms per sum of the cuda backend's ``conv_bn_act``."""
    gate_hidden_channels: int = sys.maxsize
    """Hidden channels of the cuda backend's gates."""


def of_module(backend: str) -> KernelLimits:
    """What the loaded module of "cpu" or "cuda" says by its op ``limits``, by name.

    Raises:
        ValueError: it has a limit that is not known here, because it was built from other sources.
    """
    packet = getattr(getattr(torch.ops, f"effkernels_{backend}"), "limits", None)
    if packet is None:
        return KernelLimits()
    names = [result.name for result in packet.default._schema.returns]
    unknown = sorted(set(names) - set(KernelLimits._fields))
    if unknown:
        raise ValueError(
            f"the module of the {backend} backend has limits that are not known: {', '.join(unknown)}; build it again"
        )
    found = packet()
    values = found if isinstance(found, tuple) else (found,)
    return KernelLimits(**dict(zip(names, values, strict=True)))


def refusal(arguments: Callable[..., Any], *limits: Limit) -> Refusal:
    """A function of an op's flat arguments that returns the first reason that one of ``limits`` gives, or None."""

    def refuses(*flat: Any) -> str | None:
        named = arguments(*flat)
        for limit in limits:
            reason = limit(named)
            if reason is not None:
                return reason
        return None

    return refuses


def other_dtypes(arguments: Sequence[Any]) -> str | None:
    """Refuse tensors whose dtype is not in ``KERNEL_DTYPES``."""
    for argument in arguments:
        if isinstance(argument, Tensor) and argument.dtype not in KERNEL_DTYPES:
            return f"it computes float32, bfloat16 and float16, not {argument.dtype}"
    return None


def other_dtypes_but_uint8_images(arguments: ConvArguments) -> str | None:
    """The same, except for images, which may be uint8."""
    if arguments.x.dtype == torch.uint8:
        return other_dtypes(arguments._replace(x=arguments.weight))
    return other_dtypes(arguments)


def not_float32(arguments: Sequence[Any]) -> str | None:
    """Refuse tensors of another dtype."""
    for argument in arguments:
        if isinstance(argument, Tensor) and argument.dtype != torch.float32:
            return f"it computes float32, not {argument.dtype}"
    return None


def pooled_not_float32(arguments: GateArguments) -> str | None:
    """Refuse pooled values of another dtype than float32, such as float64."""
    if arguments.pooled.dtype != torch.float32:
        return f"it computes gates from float32, not {arguments.pooled.dtype}"
    return None


def gate_not_float32(arguments: PointwiseArguments) -> str | None:
    """A gate of another dtype than what `squeeze_excite_gate` makes."""
    gate = arguments.gate
    if gate is not None and gate.dtype != torch.float32:
        return f"it takes gates of float32, not {gate.dtype}"
    return None


def too_many_rows(most: int, weight: str = "weight") -> Limit:
    """Refuse convolution kernels, in the argument ``weight``, with more than ``most`` rows."""

    def limit(arguments: Any) -> str | None:
        if getattr(arguments, weight).shape[2] > most:
            return f"its kernels have at most {most} rows"
        return None

    return limit


def too_many_terms(most: int) -> Limit:
    """Refuse dense convolutions with more than ``most`` terms per sum."""

    def limit(arguments: ConvArguments) -> str | None:
        terms = arguments.weight.shape[1:].numel()
        if terms > most:
            return f"its direct convolution sums at most {most} terms, not {terms}"
        return None

    return limit


def too_many_hidden(most: int, weight: str = "reduce_weight") -> Limit:
    """Refuse gates with more than ``most`` hidden channels; ``weight`` names their first weight, which may be None."""

    def limit(arguments: Any) -> str | None:
        matrix = getattr(arguments, weight)
        hidden = 0 if matrix is None else matrix.shape[0]
        if hidden > most:
            return f"its gates have at most {most} hidden channels, not {hidden}"
        return None

    return limit


def no_hidden(arguments: MbconvArguments) -> str | None:
    """Refuse a gate with zero hidden channels."""
    weight = arguments.se_reduce_weight
    if weight is not None and weight.shape[0] == 0:
        return "its blocks need gates with at least one hidden channel"
    return None


@functools.cache
def capability(index: int) -> tuple[int, int]:
    """The compute capability of a GPU."""
    return torch.cuda.get_device_capability(index)


def _old_gpu(index: int) -> str | None:
    found = capability(index)
    if found >= CAPABILITY:
        return None
    have, want = (".".join(map(str, version)) for version in (found, CAPABILITY))
    return f"GPU {index} has compute capability {have}; {want} or newer is needed"


# torch.compile takes the result as a constant while tracing, as for dispatch.warn_once.
_old_gpu._dynamo_marked_constant = True  # type: ignore[attr-defined]


def old_gpu(device: torch.device) -> str | None:
    """Refuse GPUs without device code. The CPU is accepted: interpreters run there."""
    return _old_gpu(device.index) if device.type == "cuda" else None


def on_gpu(refuses: Refusal) -> Refusal:
    """Refuse old GPUs, and otherwise what ``refuses`` refuses. Ops run on the device of their first argument."""

    def on_new_ones(first: Tensor, *others: Any) -> str | None:
        return old_gpu(first.device) or refuses(first, *others)

    return on_new_ones


def network(x: Tensor, tensors: Sequence[Tensor], steps: Network) -> str | None:
    """Refuse tensors and images of other dtypes than ``KERNEL_DTYPES``; a first ``conv_bn_act`` takes uint8 images."""
    # There are hundreds of tensors, so this avoids a Python loop over them.
    others = set(map(operator.attrgetter("dtype"), tensors)) - KERNEL_DTYPES
    if others:
        return other_dtypes(tensors)
    first = steps.steps[0].op == "conv_bn_act"
    return None if first and x.dtype == torch.uint8 else other_dtypes((x,))


def steps_of_network(refusals: Mapping[str, Refusal]) -> Refusal:
    """For a backend with one kernel for whole networks: refuse what ``refusals`` refuse of any step."""

    def refuses(x: Tensor, tensors: Sequence[Tensor], steps: Network) -> str | None:
        images, maps = x, tensors[0]  # tensors[0] has the dtype of the maps between the steps
        for step in steps.steps:
            if step.op != LINEAR:
                reason = refusals[step.op](images, *step.arguments(tensors))
                if reason is not None:
                    return f"{step.op}: {reason}"
            images = maps
        return network(x, tensors, steps)

    return refuses
