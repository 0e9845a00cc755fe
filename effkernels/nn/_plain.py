"""Whether a module computes just what its class says, so that an op may compute it instead."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import module as _module


def is_plain(module: nn.Module, *types: type[nn.Module]) -> bool:
    """One of ``types`` itself (no subclass: quantised, parametrised), without hooks or a patched forward."""
    return type(module) in types and not has_hooks(module) and "forward" not in module.__dict__


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
