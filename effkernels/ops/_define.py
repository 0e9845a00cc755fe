"""How an op comes to be: one schema that the public op and every backend's private op share.

``define`` gives ``torch.ops.effkernels.<name>`` its schema, its fake (exact strides), its autograd formula
and its FLOP formula. A backend's compiled op gets the same four through :func:`define_private`. So all of
them exist whether or not anything was compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from effkernels import dispatch

_NAMESPACE = "effkernels"
_libraries: dict[str, torch.library.Library] = {}
_defined: dict[str, Op] = {}


@dataclass(frozen=True)
class Op:
    """One contract. All callables take the arguments of ``schema``, in order; ``flops`` takes shapes
    where they take tensors. ``composed`` computes the op from others, for backends that lack it. Ops that
    are not ``differentiable`` refuse to be called where a gradient would be wanted."""

    name: str
    schema: str
    reference: Callable[..., Any]
    fake: Callable[..., Any]
    flops: Callable[..., int]
    composed: Callable[..., Any] | None = None
    differentiable: bool = True

    def __call__(self, *arguments: Any) -> Any:
        """Run on the chosen backend. ``arguments`` are checked and in the order of the schema."""
        device_type = arguments[0].device.type
        composite = self.composed is not None
        otherwise = self.composed or self.reference
        run = dispatch.choose(self.name, device_type, arguments, otherwise, composite=composite)
        assert run is not None
        if dispatch.autocast_enabled(device_type):
            # Casting is done (see _arguments.cast); autocast would also cast gates and BN to 16 bits.
            with torch.autocast(device_type, enabled=False):
                return run(*arguments)
        return run(*arguments)


def nhwc_empty(like: Tensor, size: Sequence[int]) -> Tensor:
    """An uninitialised channels_last tensor: what every kernel allocates for its result."""
    return torch.empty(
        tuple(size), dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _library(namespace: str) -> torch.library.Library:
    if namespace not in _libraries:
        _libraries[namespace] = torch.library.Library(namespace, "FRAGMENT")  # type: ignore[no-untyped-call]
    return _libraries[namespace]


def define(op: Op) -> Op:
    """Register the public op ``torch.ops.effkernels.<name>``, which chooses its backend at run time."""

    def run(*arguments: Any) -> Any:
        return _exact_strides(op(*arguments))

    library = _register(op, _NAMESPACE)
    library.impl(op.name, run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    return declare(op)


def declare(op: Op) -> Op:
    """Make the contract known to backends, without a public op."""
    _defined[op.name] = op
    return op


def defined(name: str) -> Op:
    """The contract of a public op: what a backend registers its kernel against."""
    return _defined[name]


def define_private(name: str, backend: str) -> Callable[..., Any]:
    """Register ``torch.ops.effkernels_<backend>.<name>``, of the same contract, and return it.

    The backend implements it for its dispatch key and gives it to :func:`effkernels.dispatch.register_kernel`.
    """
    _register(defined(name), f"{_NAMESPACE}_{backend}")
    packet = getattr(getattr(torch.ops, f"{_NAMESPACE}_{backend}"), name)
    overload: Callable[..., Any] = packet.default
    return overload


def implement_private(name: str, backend: str, key: str, run: Callable[..., Any]) -> None:
    """Let ``run`` compute a backend's private op for a dispatch key, as compiled modules do by themselves."""
    _library(f"{_NAMESPACE}_{backend}").impl(name, run, key)  # type: ignore[no-untyped-call]


def _register(op: Op, namespace: str) -> torch.library.Library:
    library, name = _library(namespace), f"{namespace}::{op.name}"
    library.define(  # type: ignore[no-untyped-call]
        op.name + op.schema, tags=(torch.Tag.pt2_compliant_tag,)
    )
    torch.library.register_fake(name, op.fake, lib=library)
    if op.differentiable:
        torch.library.register_autograd(
            name, _recompute(op.reference), setup_context=_save_inputs, lib=library
        )
    else:
        torch.library.register_autograd(name, _refuse(op.name), lib=library)

    def flops(*arguments: Any, out_shape: Any = None, **named: Any) -> int:
        return op.flops(*arguments)

    register_flop_formula(getattr(getattr(torch.ops, namespace), op.name))(flops)
    return library


def _exact_strides(result: Any) -> Any:
    """Give dimensions of size 1, whose strides PyTorch leaves open, the strides that the fake has."""
    if isinstance(result, tuple):
        return tuple(_exact_strides(part) for part in result)
    if result.dim() != 4:
        return result.contiguous()
    result = result.contiguous(memory_format=torch.channels_last)
    _, channels, height, width = result.shape
    c = max(channels, 1)
    exact = (max(height, 1) * max(width, 1) * c, 1, max(width, 1) * c, c)
    return result.as_strided(result.shape, exact)


class _Saved:
    """Stands in ``ctx.arguments`` for a tensor that lies in ``ctx.saved_tensors``."""


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*(a for a in inputs if isinstance(a, Tensor)))
    ctx.arguments = tuple(_Saved if isinstance(a, Tensor) else a for a in inputs)


def _refuse(name: str) -> Callable[..., Any]:
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> Any:
        raise NotImplementedError(f"{name}: it has no gradient; call the ops of its parts")

    return backward


def _recompute(reference: Callable[..., Any]) -> Callable[..., tuple[Tensor | None, ...]]:
    """An autograd formula for a fused forward: run the reference again and differentiate that."""

    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        with torch.enable_grad():
            # Views, not detached copies: with create_graph the gradients stay connected to the inputs.
            arguments: list[Any] = []
            for argument, needed in zip(ctx.arguments, ctx.needs_input_grad, strict=True):
                if argument is _Saved:
                    tensor = next(saved)
                    argument = tensor.view_as(tensor) if needed else tensor.detach()
                arguments.append(argument)
            results = reference(*arguments)
        results = results if isinstance(results, tuple) else (results,)
        pairs = [
            (r, g)
            for r, g in zip(results, grad_outputs, strict=True)
            if g is not None and r.requires_grad
        ]
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad) if needed]
        gradients: list[Tensor | None] = [None] * len(arguments)
        if pairs and wanted:
            found = torch.autograd.grad(
                [r for r, _ in pairs],
                [arguments[i] for i in wanted],
                [g for _, g in pairs],
                create_graph=torch.is_grad_enabled(),
                allow_unused=True,
            )
            for i, gradient in zip(wanted, found, strict=True):
                gradients[i] = gradient
        return tuple(gradients)

    return backward
