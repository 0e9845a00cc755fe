"""Random changes that people make to the modules of a network: the same for ours and for its plain PyTorch twin."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import twin
from effkernels import nn as layers
from effkernels.models import EfficientNet

CHANGE = 0.7  # the factor of changed modules, too large for rounding to hide

# Classes whose forward is patched: ours, and the twin's counterparts.
CLASSES: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "network": (EfficientNet, twin.Network),
    "block": (layers.MBConv, twin.Block),
    "layer": (layers.ConvBnAct, twin.Layer),
    "squeeze": (layers.SqueezeExcite, twin.Squeeze),
    "drop": (layers.DropPath, twin.Drop),
    "same convolution": (layers.Conv2dSame, twin.SameConv2d),
    **{
        kind.__name__: (kind, kind)
        for kind in (nn.Conv2d, nn.BatchNorm2d, nn.SiLU, nn.ReLU6, nn.Identity, nn.Sequential)
    },
    **{kind.__name__: (kind, kind) for kind in (nn.Linear, nn.Dropout)},
}


class Wrapper(nn.Module):
    """Changes the result of another module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * CHANGE


class Halving(nn.Sequential):
    """A container that does more than its base class."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * CHANGE


def _conv(like: nn.Conv2d, **options: Any) -> nn.Conv2d:
    values = {
        "stride": like.stride,
        "padding": like.padding,
        "groups": like.groups,
        "bias": True,
        **options,
    }
    return nn.Conv2d(like.in_channels, like.out_channels, like.kernel_size, **values)


_OTHERS: dict[type[nn.Module], dict[str, Callable[[Any], Any]]] = {
    nn.Conv2d: {
        "with bias": _conv,
        "reflecting": lambda old: _conv(old, padding_mode="reflect"),
        "circular": lambda old: _conv(old, padding_mode="circular"),
        "same": lambda old: _conv(old, stride=1, padding="same"),
        "in a container": lambda old: nn.Sequential(old, nn.Identity()),
        "of 6 channels": lambda old: nn.Conv2d(6, old.out_channels, 3, 2, 1),
    },
    nn.BatchNorm2d: {
        "no affine": lambda old: nn.BatchNorm2d(old.num_features, affine=False),
        "no statistics": lambda old: nn.BatchNorm2d(old.num_features, track_running_stats=False),
        "group norm": lambda old: nn.GroupNorm(1, old.num_features),
        "instance norm": lambda old: nn.InstanceNorm2d(old.num_features, affine=True),
    },
    nn.Linear: {
        "no bias": lambda old: nn.Linear(old.in_features, 7, bias=False),
        "two layers": lambda old: nn.Sequential(old, nn.Tanh()),
    },
    nn.Module: {
        "identity": lambda old: nn.Identity(),
        "tanh": lambda old: nn.Tanh(),
        "relu": lambda old: nn.ReLU(),
        "relu6": lambda old: nn.ReLU6(),
        "silu in place": lambda old: nn.SiLU(inplace=True),
        "prelu": lambda old: nn.PReLU(init=0.3),
        "wrapper": Wrapper,
        "none": lambda old: None,
        "empty": lambda old: nn.Sequential(),
        "chain": lambda old: nn.Sequential(old, nn.Tanh()),
    },
}

_ATTRIBUTES: dict[str, list[tuple[str, Any]]] = {
    "Conv2d": [
        ("stride", (1, 1)),
        ("stride", (2, 2)),
        ("stride", 2),
        ("padding", (1, 1)),
        ("padding", 1),
        ("padding", (0, 0)),
        ("dilation", (2, 2)),
        ("dilation", 2),
        ("groups", 2),
        ("padding_mode", "reflect"),
        ("kernel_size", (9, 9)),
        ("out_channels", 99),
    ],
    "BatchNorm2d": [
        ("eps", 0.5),
        ("eps", 0.0),
        ("momentum", 0.9),
        ("momentum", None),
        ("track_running_stats", False),
        ("weight", None),
        ("bias", None),
        ("running_mean", None),
    ],
    "Drop": [("rate", 0.0), ("rate", 0.6), ("rate", 1.0)],
    "Dropout": [("p", 0.0), ("p", 0.9)],
    "Block": [
        ("residual", False),
        ("residual", True),
        ("squeeze_excite", None),
        ("expand", None),
    ],
    "ReLU6": [("max_val", 0.5), ("min_val", -0.5), ("inplace", True)],
    "SiLU": [("inplace", True)],
    "Linear": [("bias", None)],
}


def _hook_forward(module: nn.Module) -> None:
    module.register_forward_hook(lambda _m, _i, y: y * CHANGE)


def _hook_before(module: nn.Module) -> None:
    module.register_forward_pre_hook(lambda _m, inputs: (inputs[0] * CHANGE, *inputs[1:]))


def _hook_backward(module: nn.Module) -> None:
    module.register_full_backward_hook(
        lambda _m, gradients, _o: tuple(None if g is None else g * CHANGE for g in gradients)
    )


def _hook_before_backward(module: nn.Module) -> None:
    module.register_full_backward_pre_hook(
        lambda _m, gradients: tuple(None if g is None else g * CHANGE for g in gradients)
    )


HOOKS = {
    "after": _hook_forward,
    "before": _hook_before,
    "backward": _hook_backward,
    "before backward": _hook_before_backward,
}


def _another_parameter(module: nn.Module) -> None:
    module.weight = nn.Parameter(module.weight.detach() * CHANGE)


def _other_data(module: nn.Module) -> None:
    module.weight.data = module.weight.data * CHANGE


def _in_place(module: nn.Module) -> None:
    module.weight.detach().mul_(CHANGE)


def _attribute_not_parameter(module: nn.Module) -> None:
    weight = module.weight.detach() * CHANGE
    del module.weight
    module.weight = weight


def _larger_kernel(module: nn.Module) -> None:
    out_channels, group_channels, height, width = module.weight.shape
    module.weight = nn.Parameter(0.1 * torch.randn(out_channels, group_channels, height + 2, width))


def _frozen(module: nn.Module) -> None:
    module.requires_grad_(False)


def _weight_norm(module: nn.Module) -> None:
    parametrizations.weight_norm(module)


def _pruned(module: nn.Module) -> None:
    prune.l1_unstructured(module, "weight", 0.5)


def _own_convolution(module: nn.Module) -> None:
    if not isinstance(module, nn.Conv2d):
        raise TypeError("no convolution")

    def run(self: nn.Conv2d, *arguments: Any) -> Tensor:
        return nn.Conv2d._conv_forward(self, *arguments) * CHANGE

    # TensorFlow's padding is computed by ours without this method.
    if type(module) is nn.Conv2d:
        module._conv_forward = types.MethodType(run, module)


WEIGHTS = {
    "another parameter": _another_parameter,
    "other data": _other_data,
    "written in place": _in_place,
    "no parameter": _attribute_not_parameter,
    "larger kernel": _larger_kernel,
    "frozen": _frozen,
    "weight norm": _weight_norm,
    "pruned": _pruned,
    "own convolution": _own_convolution,
}


@dataclass(frozen=True)
class Surgery:
    """One change. ``how`` names it, as in the tables above; ``path`` names a module.

    For the kind "call", ``how`` is a function that changes a network.
    """

    kind: str
    path: str
    how: Any = None

    def late(self) -> bool:
        """Whether it must be repeated after the network's mode was set."""
        return self.kind == "mode"

    def apply(self, model: nn.Module, stack: ExitStack) -> None:
        """Change ``model``; ``stack`` receives what must be undone: changes of classes.

        Raises:
            Any exception from PyTorch, if the module no longer exists or cannot be changed in this way.
        """
        torch.manual_seed(99)  # the same weights for both
        if self.kind == "patch a class":
            _patch_class(CLASSES[self.path][isinstance(model, twin.Network)], stack)
            return
        if self.kind == "call":
            self.how(model)
            return
        module = model.get_submodule(self.path)
        parent = model.get_submodule(self.path.rpartition(".")[0])
        name = self.path.rpartition(".")[2]
        dtype = next((p.dtype for p in model.parameters()), None)
        _KINDS[self.kind](self.how, parent, name, module)
        model.to(dtype)

    def fails(self, model: nn.Module, stack: ExitStack) -> bool:
        """Apply it; returns whether the module no longer exists or PyTorch cannot change it in this way."""
        try:
            self.apply(model, stack)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return True
        return False


def _patch_class(kind: type[nn.Module], stack: ExitStack) -> None:
    original = kind.forward

    def forward(self: nn.Module, *arguments: Any) -> Any:
        return original(self, *arguments) * CHANGE

    stack.enter_context(mock.patch.object(kind, "forward", forward))


def _replace(how: str, parent: nn.Module, name: str, module: nn.Module) -> None:
    table = {k: f for kind, t in _OTHERS.items() if isinstance(module, kind) for k, f in t.items()}
    setattr(parent, name, table[how](module))


def _patch(how: str, parent: nn.Module, name: str, module: nn.Module) -> None:
    def forward(self: nn.Module, *arguments: Any) -> Any:
        return type(self).forward(self, *arguments) * CHANGE

    module.forward = types.MethodType(forward, module)


def _delete(how: str, parent: nn.Module, name: str, module: nn.Module) -> None:
    if isinstance(parent, nn.Sequential):
        del parent[list(parent._modules).index(name)]
    else:
        delattr(parent, name)


def _append(how: str, parent: nn.Module, name: str, module: nn.Module) -> None:
    new = Wrapper(nn.Identity()) if how.startswith("wrapper") else nn.Tanh()
    if how.endswith("first"):
        module.insert(0, new)
    elif how == "again":
        module.append(module[len(module) - 1])
    else:
        module.append(new)


def _subclass(how: str, parent: nn.Module, name: str, module: nn.Module) -> None:
    setattr(parent, name, Halving(*module))


def _compile(how: str, parent: nn.Module, name: str, module: nn.Module) -> None:
    if how == "in place":
        module.compile(backend="eager")
    else:
        setattr(parent, name, torch.compile(module, backend="eager"))


def _attribute(how: tuple[str, Any], parent: nn.Module, name: str, module: nn.Module) -> None:
    setattr(module, *how)


def _mode(how: bool, parent: nn.Module, name: str, module: nn.Module) -> None:
    module.train(how)


_KINDS: dict[str, Callable[[Any, nn.Module, str, nn.Module], None]] = {
    "replace": _replace,
    "patch": _patch,
    "delete": _delete,
    "append": _append,
    "subclass": _subclass,
    "compile": _compile,
    "hook": lambda how, parent, name, module: HOOKS[how](module),
    "attribute": _attribute,
    "weights": lambda how, parent, name, module: WEIGHTS[how](module),
    "mode": _mode,
}


def surgeries(model: nn.Module, *, compiled: bool = False) -> st.SearchStrategy[Surgery]:
    """Changes of modules of ``model``, a :class:`twin.Network`; ``compiled``: only compilation of parts."""
    named = {path: module for path, module in model.named_modules() if path}
    paths = sorted(named)

    def of(kind: str, chosen: list[str], how: st.SearchStrategy[Any]) -> st.SearchStrategy[Surgery]:
        return st.builds(Surgery, st.just(kind), st.sampled_from(chosen), how)

    if compiled:
        parts = [p for p in paths if isinstance(named[p], (nn.Sequential, twin.Block, twin.Layer))]
        return of("compile", parts, st.sampled_from(["in place", "outside"]))

    def replaced(path: str) -> st.SearchStrategy[Surgery]:
        ways = [k for kind, t in _OTHERS.items() if isinstance(named[path], kind) for k in t]
        return of("replace", [path], st.sampled_from(ways))

    def attributes(path: str) -> st.SearchStrategy[Surgery]:
        kind = type(named[path]).__name__
        kind = "Conv2d" if kind == "SameConv2d" else kind
        return of("attribute", [path], st.sampled_from(_ATTRIBUTES[kind]))

    containers = [p for p in paths if isinstance(named[p], nn.Sequential)]
    changeable = [
        p
        for p in paths
        if type(named[p]).__name__ in _ATTRIBUTES or isinstance(named[p], nn.Conv2d)
    ]
    weighted = [p for p in paths if isinstance(getattr(named[p], "weight", None), nn.Parameter)]
    return st.one_of(
        st.sampled_from(paths).flatmap(replaced),
        st.sampled_from(changeable).flatmap(attributes),
        of("weights", weighted, st.sampled_from(sorted(WEIGHTS))),
        of("hook", paths, st.sampled_from(sorted(HOOKS))),
        of("patch", paths, st.none()),
        of("patch a class", sorted(CLASSES), st.none()),
        of("delete", paths, st.none()),
        of("append", containers, st.sampled_from(["tanh", "wrapper", "wrapper first", "again"])),
        of("subclass", containers, st.none()),
        of("mode", paths, st.booleans()),
    )


@contextmanager
def same_surgery(
    surgery: list[Surgery], ours: nn.Module, theirs: nn.Module, between: Callable[[], None]
) -> Iterator[list[Surgery]]:
    """Apply the same changes to both, and ``between`` after each; returns those to repeat (:meth:`Surgery.late`).

    Changes of classes end with the block.
    """
    with ExitStack() as stack:
        again = []
        for one in surgery:
            failed = [one.fails(model, stack) for model in (theirs, ours)]
            assert failed in ([True] * 2, [False] * 2), f"{one} fails for one of them: {failed}"
            if one.late() and not any(failed):
                again.append(one)
            between()
        yield again
