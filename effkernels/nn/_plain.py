"""Whether a module computes exactly what its class defines, so that an op may compute it instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as _module

from effkernels import unchanged

# The classes' methods that compute when effkernels was imported: they may be patched later.
_FORWARDS: dict[type[nn.Module], tuple[Any, ...]] = {}
# A convolution's `forward` calls the second, which some tools replace.
_COMPUTING = ("forward", "_conv_forward")


def computing(cls: type[nn.Module]) -> tuple[Any, ...]:
    """The methods that compute, as the class has them now; None for those that it lacks."""
    return tuple(getattr(cls, name, None) for name in _COMPUTING)


def remember(*types: type[nn.Module]) -> None:
    """Record the current ``forward`` of these classes as what their instances compute."""
    for cls in types:
        _FORWARDS[cls] = computing(cls)


remember(
    *(nn.Conv2d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.Linear, nn.Dropout),
    *(nn.SiLU, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Identity, nn.Sequential, nn.ModuleList),
)
_CALL = nn.Module.__call__


def unpatched(cls: type[nn.Module]) -> bool:
    """Whether calling an instance of the class still runs what it ran when effkernels was imported.

    torch.export replaces ``nn.Module.__call__`` while it traces, to record the current module; that is allowed.
    """
    called = cls.__call__ is _CALL or torch.compiler.is_exporting()
    return called and computing(cls) == _FORWARDS.get(cls)


# torch.compile takes the result as a constant while tracing, as for dispatch.warn_once.
unpatched._dynamo_marked_constant = True  # type: ignore[attr-defined]


def is_plain(module: nn.Module, *types: type[nn.Module]) -> bool:
    """Whether the module's class is one of ``types`` and nothing changes what its ``forward`` computes.

    No subclass (quantised, parametrised), no hooks, no patched ``forward`` of the module or of its class (nor a
    convolution's ``_conv_forward``, which some tools replace), and not compiled on its own.
    """
    return (
        type(module) in types
        and not has_hooks(module)
        and "forward" not in module.__dict__
        and "_conv_forward" not in module.__dict__
        and "_compiled_call_impl" not in module.__dict__
        and unpatched(type(module))
    )


def has_hooks(module: nn.Module) -> bool:
    """Whether calling the module runs anything besides its forward."""
    return any(hook_dicts(module))


def hook_dicts(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """The module's own dictionaries of hooks, of every kind that runs when it is called."""
    return (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )


def any_global_hook() -> bool:
    """Whether hooks are registered for all modules, as by PyTorch's FLOP counter."""
    return bool(
        _module._global_forward_hooks
        or _module._global_forward_pre_hooks
        or _module._global_backward_hooks
        or _module._global_backward_pre_hooks
    )


_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


def look_at_modules(
    modules: Sequence[nn.Module],
    *,
    names: Sequence[dict[str, Any]] = (),
    dicts: Sequence[dict[str, Any]] = (),
    entries: Sequence[tuple[dict[str, Any], str]] = (),
    types: Sequence[Any] = (),
    methods: Sequence[tuple[type[nn.Module], str]] = (),
) -> unchanged.Objects | None:
    """Modules, but not those inside of them, as they are now; others are as for :func:`effkernels.unchanged.look_at`.

    That is all but the tensors' contents: their classes and what these compute, attributes, children, parameters and
    buffers. Where there are hooks, of theirs or for all modules, nothing is the same.
    """
    everywhere = vars(_module)
    classes = dict.fromkeys(map(type, modules))
    called = [(c, n) for c in classes for n in ("__call__", *_COMPUTING) if hasattr(c, n)]
    return unchanged.look_at(
        instances=modules,
        dicts=[*dicts, *(d for m in modules for d in (m._modules, m._parameters, m._buffers))],
        names=names,
        entries=[*entries, *((everywhere, name) for name in _GLOBAL_HOOKS)],
        empty=[
            *(everywhere[name] for name in _GLOBAL_HOOKS),
            *(hooks for m in modules for hooks in hook_dicts(m)),
        ],
        types=types,
        attributes=[*methods, *called],
    )
