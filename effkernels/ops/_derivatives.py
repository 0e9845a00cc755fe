"""Derivatives of the ops, in forward and backward mode, through their references.

A fused forward saves its inputs, and the backward pass differentiates the reference at them. In forward mode
the reference runs instead of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from effkernels import dispatch

if TYPE_CHECKING:
    from effkernels.ops._define import Op


def autograd_kernel(op: Op, overload: Any) -> Callable[..., Any]:
    """The kernel of ``overload``, which implements ``op``, for the Autograd dispatch keys.

    It takes the dispatcher's keys before the arguments. It does what ``torch.library.register_autograd``
    does, and forward mode too, which PyTorch's own does not support: it drops tangents without an error.
    """

    def below(keys: Any, arguments: Sequence[Any]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return overload.redispatch(keys & torch._C._after_autograd_keyset, *arguments)

    def forward(ctx: Any, keys: Any, *arguments: Any) -> Any:
        ctx.save_for_backward(*(a for a in arguments if isinstance(a, Tensor)))
        ctx.arguments = tuple(_Saved if isinstance(a, Tensor) else a for a in arguments)
        return below(keys, arguments)

    def backward(ctx: Any, *grad_outputs: Tensor | None) -> Any:
        return None, *_recompute(op.reference, ctx, ctx.needs_input_grad[1:], grad_outputs)

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type(f"Fused_{op.name}", (torch.autograd.Function,), methods)

    def kernel(keys: Any, *arguments: Any) -> Any:
        if dispatch.transformed():
            return op.plain(*arguments)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
            if not op.differentiable:
                raise NotImplementedError(
                    f"{op.name}: it has no gradient; call the ops that it consists of"
                )
            return function.apply(keys, *arguments)
        return below(keys, arguments)

    return kernel


class _Saved:
    """A placeholder in ``ctx.arguments`` for a tensor in ``ctx.saved_tensors``."""


def _recompute(
    reference: Callable[..., Any],
    ctx: Any,
    needs_grad: Sequence[bool],
    grad_outputs: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """The gradients of a fused forward: run the reference again and differentiate it."""
    saved = iter(ctx.saved_tensors)
    with torch.enable_grad():
        # Views instead of detached copies: with create_graph the gradients stay connected to the inputs.
        arguments: list[Any] = []
        for argument, needed in zip(ctx.arguments, needs_grad, strict=True):
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
    wanted = [i for i, needed in enumerate(needs_grad) if needed]
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
