"""Whether a classifier is the plain thing that its class says, so that its ops may run without its modules.

The modules stay ordinary ones that anybody may replace, hook, patch, compile, or switch to training. So what is
read here are types and the modules' own dictionaries, which are always there: what is missing is a reason to run
module by module, and no error.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from effkernels.nn import Conv2dSame, ConvBnAct, DropPath, MBConv, SqueezeExcite
from effkernels.nn._plain import (
    any_global_hook,
    computing,
    has_hooks,
    hook_dicts,
    look_at_modules,
    unpatched,
)
from effkernels.unchanged import Objects

_ACTS = (nn.SiLU, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Identity)
_CONVS = (nn.Conv2d, Conv2dSame)
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
_Types = tuple[type, ...]
# The parts of each layer, by name, and what they may be. None: an attribute that is None in the place of a module.
_CHILDREN: Mapping[type, Mapping[str, _Types]] = {
    ConvBnAct: {"conv": _CONVS, "bn": (*_NORMS, nn.Identity), "act": _ACTS},
    SqueezeExcite: {"reduce": (nn.Conv2d,), "act": _ACTS, "expand": (nn.Conv2d,)},
    MBConv: {
        "expand": (ConvBnAct, type(None)),
        "depthwise": (ConvBnAct,),
        "squeeze_excite": (SqueezeExcite, type(None)),
        "project": (ConvBnAct,),
        "drop_path": (DropPath,),
    },
}
# Tensors, by type of module: they must be parameters and buffers, which a replica of DataParallel has not.
_AFFINE = frozenset(("weight", "bias"))
_STATISTICS = frozenset(("running_mean", "running_var", "num_batches_tracked"))
_STATE: Mapping[type, tuple[frozenset[str], frozenset[str]]] = {
    **dict.fromkeys((*_CONVS, nn.Linear), (_AFFINE, frozenset[str]())),
    **dict.fromkeys(_NORMS, (_AFFINE, _STATISTICS)),
}
# Attributes that decide what a module computes, by its type.
_CONV = operator.itemgetter(
    "stride", "padding", "dilation", "groups", "padding_mode", "kernel_size"
)
_NORM = operator.itemgetter("training", "eps")
_SETTINGS: Mapping[type, operator.itemgetter[Any]] = {
    **dict.fromkeys(_CONVS, _CONV),
    **dict.fromkeys(_NORMS, _NORM),
    DropPath: operator.itemgetter("training", "rate"),
    nn.Dropout: operator.itemgetter("training"),
    nn.ReLU6: operator.itemgetter("min_val", "max_val"),
    MBConv: operator.itemgetter("residual"),
}
_METHODS = ("forward", "forward_features", "forward_head")  # of a classifier
# Read anew each time: tools that drop hooks put other dictionaries into modules.
_FORWARD_HOOKS = operator.itemgetter("_forward_hooks")
_PRE_HOOKS = operator.itemgetter("_forward_pre_hooks")
_CALLED = operator.attrgetter("__call__")
# What decides about a network beside its layers: attributes of its own.
_OWN = ("training", "preprocessing", "_modules")
_STORES = operator.itemgetter("_modules", "_parameters", "_buffers")
_MISSING = object()


class Parts(NamedTuple):
    """A classifier taken apart.

    Attributes:
        stem, blocks, head: make the last feature map; the head is a 1x1 convolution, or None where the blocks make it.
        classifier: the linear layer that follows the pooling; None where something else does, which then is
            called as a module.
        modules: all of them, and the containers around them.
        stages: how many blocks each stage has.
        ends_in_features: nothing is done to the pooled features: there is an ``nn.Identity`` for a classifier, and
            no dropout.
    """

    stem: ConvBnAct
    blocks: tuple[MBConv, ...]
    head: ConvBnAct | None
    classifier: nn.Linear | None
    modules: tuple[nn.Module, ...]
    stages: tuple[int, ...]
    ends_in_features: bool = False


class _Found(Exception):  # noqa: N818 - no error: a reason
    """Why the modules have to run."""


def plain_parts(network: nn.Module, methods: Mapping[str, Any]) -> Parts | str:
    """The parts of a classifier that is exactly what it is taken for, or why its modules have to run one by one.

    Args:
        network: with ``stem``, ``stages`` (of blocks), ``head``, ``dropout`` and ``classifier``.
        methods: ``forward`` and the methods that it calls, as the class of the network was written.
    """
    try:
        return _take_apart(network, methods)
    except _Found as reason:
        return str(reason)


def plain_trunk(network: nn.Module, *, head: bool) -> Parts | str:
    """As :func:`plain_parts`, of what makes feature maps: ``stem`` and ``stages``, and ``head`` if it is asked for."""
    try:
        return _take_trunk_apart(network, head)
    except _Found as reason:
        return str(reason)


def methods_of(network_class: type[nn.Module]) -> dict[str, Any]:
    """What :func:`plain_parts` compares with, taken before anybody can replace it."""
    return {name: getattr(network_class, name) for name in _METHODS}


def _take_apart(network: nn.Module, methods: Mapping[str, Any]) -> Parts:
    if methods.keys() & vars(network).keys() or methods != methods_of(type(network)):
        raise _Found("a method of the model is replaced")
    trunk = _take_trunk_apart(network, head=True)
    dropout, classifier = (network._modules.get(name) for name in ("dropout", "classifier"))
    if dropout is None or classifier is None:
        raise _Found("dropout or classifier is no module")
    if has_hooks(dropout) or has_hooks(classifier):
        raise _Found("there are hooks")
    modules = (*trunk.modules, dropout, classifier)
    return trunk._replace(
        classifier=cast(nn.Linear, classifier)
        if _is_only(dropout, classifier, nn.Linear)
        else None,
        modules=modules,
        ends_in_features=_is_only(dropout, classifier, nn.Identity),
    )


def _take_trunk_apart(network: nn.Module, head: bool) -> Parts:
    if network.training:
        raise _Found("the model is in training mode")
    if any_global_hook():
        raise _Found("there are hooks")
    children = network._modules
    if children.get("stem_pool") is not None:
        raise _Found("a max-pool follows the stem, and no op pools there")
    if head and type(children.get("head")) is nn.Identity:
        raise _Found("there is no head, and no op pools behind the stages")
    modules: list[nn.Module] = []
    stem = _checked("stem", children.get("stem"), (ConvBnAct,), modules)
    blocks: list[MBConv] = []
    ends = [0]
    stages = _checked("stages", children.get("stages"), (nn.Sequential, nn.ModuleList), modules)
    for i, stage in stages._modules.items():
        sequential = _checked(f"stages.{i}", stage, (nn.Sequential,), modules)
        for j, block in sequential._modules.items():
            blocks.append(_checked(f"stages.{i}.{j}", block, (MBConv,), modules))
        ends.append(len(blocks))
    last = _checked("head", children.get("head"), (ConvBnAct,), modules) if head else None
    for layer in (stem, *blocks, *([last] if head else [])):
        if layer.fusible() in (None, False):
            raise _Found("a layer is in training, or not what the ops compute")
    if stem.conv.groups != 1 or (last is not None and not last.pointwise):
        raise _Found("the stem is no dense convolution, or the head no 1x1 convolution")
    counts = tuple(map(operator.sub, ends[1:], ends))
    return Parts(stem, tuple(blocks), last, None, tuple(modules), counts)


def _is_only(dropout: nn.Module, classifier: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether nothing but a layer of this kind follows the pooling."""
    try:
        _checked("dropout", dropout, (nn.Dropout,), [])
        _checked("classifier", classifier, (kind,), [])
    except _Found:
        return False
    return not dropout.training


def _checked(path: str, module: Any, types: _Types, modules: list[nn.Module]) -> Any:
    """``module``, exactly one of ``types`` down to its leaves, which are added to ``modules``."""
    cls = type(module)
    if cls not in types:
        raise _Found(
            f"{path} is {'a ' + cls.__name__ if isinstance(module, nn.Module) else 'no module'}"
        )
    if has_hooks(module):
        raise _Found("there are hooks")
    own = vars(module)
    if not unpatched(cls) or "_compiled_call_impl" in own:
        raise _Found(f"{path} is patched or compiled")
    shadowed = [name for name in own if callable(getattr(cls, name, None))]
    if shadowed:
        raise _Found(f"{path}.{shadowed[0]} is replaced")
    parameters, buffers = _STATE.get(cls, (frozenset[str](), frozenset[str]()))
    if module._parameters.keys() != parameters or module._buffers.keys() != buffers:
        raise _Found(f"{path} holds other tensors than a {cls.__name__}")
    modules.append(module)
    for name, expected in _CHILDREN.get(cls, {}).items():
        child = module._modules[name] if name in module._modules else own.get(name, _MISSING)
        if child is not None or type(None) not in expected:
            _checked(f"{path}.{name}", child, expected, modules)
    return module


def _get_all(getter: Any, dicts: list[dict[str, Any]]) -> list[Any]:
    return list(map(getter, dicts))


class Snapshot:
    """What was found in a network when it was last looked at, compared in bulk: a tenth of a millisecond for B0.

    :meth:`objects` takes a tenth of that, but sees also what does not matter.
    """

    def __init__(
        self, network: nn.Module, modules: tuple[nn.Module, ...], methods: Sequence[str] = _METHODS
    ) -> None:
        self._modules = modules
        self._methods = methods
        self._classes = list(dict.fromkeys([type(network), *map(type, modules)]))
        self._attributes = [vars(network), *map(vars, modules)]
        self._children = [m._modules for m in (network, *modules) if m._modules]
        self._network_class = type(network)
        self._module_attributes = self._attributes[1:]
        self._backward_hooks = [hooks for m in modules for hooks in hook_dicts(m)[2:]]
        self._settings = [
            (getter, [vars(m) for m in modules if _SETTINGS.get(type(m)) is getter])
            for getter in dict.fromkeys(_SETTINGS.values())
        ]
        self._then, self._parts = self._now(), self._now_parts()

    def _now(self) -> list[list[Any]]:
        return [
            list(map(type, self._modules)),
            list(map(len, self._attributes)),
            list(self._attributes[0]),
            list(map(_CALLED, self._classes)),
            list(map(computing, self._classes)),
            [getattr(self._network_class, name) for name in self._methods],
            *itertools.starmap(_get_all, self._settings),
        ]

    def _now_parts(self) -> list[Any]:
        stores = map(_STORES, self._attributes)
        children = map(dict.values, self._children)
        return [*map(vars, self._modules), *itertools.chain.from_iterable((*stores, *children))]

    def objects(self, tensors: Sequence[Tensor]) -> Objects | None:
        """All that is looked at here, as it is now, and which tensors there are; None where nobody can tell.

        Args:
            tensors: those whose class counts.
        """
        own = self._attributes[0]
        try:
            return look_at_modules(
                self._modules,
                names=[own],
                dicts=[own["_modules"]],
                entries=[(own, name) for name in _OWN if name in own],
                types=tensors,
                methods=[(self._network_class, name) for name in self._methods],
            )
        except (AttributeError, KeyError, TypeError):  # a module that is no ordinary one
            return None

    def hooked(self) -> bool:
        """Whether calling the modules runs more than their forwards."""
        return (
            any(map(_FORWARD_HOOKS, self._module_attributes))
            or any(map(_PRE_HOOKS, self._module_attributes))
            or any(self._backward_hooks)
            or any_global_hook()
        )

    def changed(self) -> bool:
        """Whether anything but hooks and tensors is not as it was."""
        try:
            parts = self._now_parts()
            return (
                len(parts) != len(self._parts)
                or not all(map(operator.is_, parts, self._parts))
                or self._now() != self._then
            )
        except (AttributeError, KeyError):
            return True
