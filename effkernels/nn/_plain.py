"""Whether a module computes just what its class says, so that an op may compute it instead."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as _module

# What the classes computed when effkernels was imported: somebody may replace that later.
_FORWARDS: dict[type[nn.Module], Any] = {}


def remember(*types: type[nn.Module]) -> None:
    """Take the ``forward`` that these classes have now for what they are known to compute."""
    for cls in types:
        _FORWARDS[cls] = cls.forward


remember(
    *(nn.Conv2d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.Linear, nn.Dropout),
    *(nn.SiLU, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Identity, nn.Sequential, nn.ModuleList),
)
_CALL = nn.Module.__call__


def unpatched(cls: type[nn.Module]) -> bool:
    """Whether instances of the class are called, and compute, as when effkernels was imported.

    torch.export takes the place of ``nn.Module.__call__`` while it traces, to note which module it is in.
    """
    called = cls.__call__ is _CALL or torch.compiler.is_exporting()
    return called and cls.forward is _FORWARDS.get(cls)


# torch.compile takes the answer as it is while tracing, as for dispatch._log_once.
unpatched._dynamo_marked_constant = True  # type: ignore[attr-defined]


def is_plain(module: nn.Module, *types: type[nn.Module]) -> bool:
    """One of ``types`` itself, and nothing around or in the place of its class's ``forward``.

    No subclass (quantised, parametrised), no hooks, no patched ``forward`` of the module or of its class (nor a
    convolution's ``_conv_forward``, which tools replace), not compiled on its own.
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
    """Whether calling the module runs more than its forward."""
    return any(hook_dicts(module))


def hook_dicts(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """The module's own dictionaries of hooks, of all kinds that run with a call."""
    return (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )


def any_global_hook() -> bool:
    """Whether hooks are registered for all modules, such as PyTorch's FLOP counter does."""
    return bool(
        _module._global_forward_hooks
        or _module._global_forward_pre_hooks
        or _module._global_backward_hooks
        or _module._global_backward_pre_hooks
    )
