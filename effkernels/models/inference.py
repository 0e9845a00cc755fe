"""A classifier's layers as one op, where a backend has it: calling layer by layer costs as much as small networks take.

Layers stay ordinary modules that anybody may change: replace, hook, switch to training, load into. What is kept here
between calls are references, and what was read to find that one op computes the same. All of it is compared again at
each call, in bulk: some ten microseconds for B0.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from effkernels import dispatch
from effkernels.nn import Conv2dSame, ConvBnAct, DropPath, MBConv
from effkernels.nn._plain import any_global_hook, hook_dicts, is_plain
from effkernels.nn.conv_bn_act import activation_name
from effkernels.ops.network import NETWORK, Step, encode
from effkernels.reference.convolution import output_size

# What attributes decide, by the type of module.
_CONV = ("stride", "padding", "dilation", "groups", "padding_mode")
_SETTINGS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: _CONV,
    Conv2dSame: _CONV,
    nn.BatchNorm2d: ("training", "eps"),
    nn.SyncBatchNorm: ("training", "eps"),
    DropPath: ("training", "rate"),
    nn.Dropout: ("training",),
    MBConv: ("residual",),
}
_TENSORS = frozenset((Tensor, nn.Parameter))
_DTYPES = frozenset((torch.float32, torch.bfloat16, torch.float16))
_METHODS = frozenset(
    ("forward_features", "forward_head")
)  # that somebody may have replaced in one model
_MOST_SIZES = 64  # of images, whose numbers are kept

Slot = tuple[dict[str, Any], str]


def _get(slots: list[Slot]) -> list[Any]:
    return [values[name] for values, name in slots]


def _same(now: list[Any], then: list[Any]) -> bool:
    return len(now) == len(then) and all(map(operator.is_, now, then))


class Parts(NamedTuple):
    """A classifier taken apart.

    ``layers`` make the last feature map, in order, the last of them a 1x1 convolution. The means over its height
    and width go through ``dropout`` and ``classifier``. ``containers`` are the modules around the layers.
    """

    layers: list[nn.Module]
    dropout: nn.Module
    classifier: nn.Module
    containers: list[nn.Module]


class _Layers:
    """What one network's layers were when they were last looked at."""

    def __init__(self, network: nn.Module, parts: Parts) -> None:
        layers = parts.layers
        self.linear = _only_linear(parts)
        tail = [parts.dropout, parts.classifier] if self.linear else []
        modules = parts.containers + [m for layer in layers for m in layer.modules()] + tail
        self._modules = modules
        self._types = list(map(type, modules))
        self._attributes = [vars(m) for m in modules]
        self._attribute_counts = list(map(len, self._attributes))
        self._hooks = [hooks for m in modules for hooks in hook_dicts(m)]
        parents = [network, *modules]
        self._child_slots: list[Slot] = [(m._modules, name) for m in parents for name in m._modules]
        self._children = _get(self._child_slots)
        self._child_dicts = [m._modules for m in parents if m._modules]
        self._child_counts = list(map(len, self._child_dicts))
        self._setting_slots: list[Slot] = [
            (vars(m), name) for m in modules for name in _SETTINGS.get(type(m), ())
        ]
        self._settings = _get(self._setting_slots)
        self.fusible = all(_fusible(layer) for layer in layers)
        if self.linear:
            layers = [*layers, parts.classifier]
        slots = [slot for layer in layers for slot in _slots(layer)] if self.fusible else []
        # Behind these the stem's op has the mean and standard deviation of images.
        stem = _slots(layers[0]) if self.fusible else ()
        self._stem_tensors = sum(values[name] is not None for values, name in stem)
        self._steps = layers
        self._absent = [slot for slot in slots if slot[0][slot[1]] is None]
        self._present = [slot for slot in slots if slot[0][slot[1]] is not None]
        self._numbers: dict[tuple[int, int, bool], tuple[list[int], list[float]]] = {}

    def hooked(self) -> bool:
        return any(self._hooks) or any_global_hook()

    def changed(self) -> bool:
        try:
            return not (
                list(map(len, self._attributes)) == self._attribute_counts
                and list(map(type, self._modules)) == self._types
                and _same(_get(self._child_slots), self._children)
                and list(map(len, self._child_dicts)) == self._child_counts
                and _get(self._setting_slots) == self._settings
                and all(value is None for value in _get(self._absent))
            )
        except KeyError:
            return True

    def arguments(self, x: Tensor, image_norm: Sequence[Tensor] = ()) -> tuple[Any, ...] | None:
        """Those of the op; None where some parameter is no ordinary tensor, or a gradient is wanted."""
        tensors = _get(self._present)
        if not _TENSORS.issuperset(map(type, tensors)):
            return None
        if torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for t in tensors)):
            return None
        key = (x.shape[2], x.shape[3], bool(image_norm))
        if key not in self._numbers:
            if len(self._numbers) >= _MOST_SIZES:
                self._numbers.clear()
            self._numbers[key] = encode(list(_steps(self._steps, key[:2], image_norm)))[1:]
        tensors[self._stem_tensors : self._stem_tensors] = image_norm
        return x, tensors, *self._numbers[key]


def _only_linear(parts: Parts) -> bool:
    """Whether nothing but a linear layer follows the pooling."""
    dropout = parts.dropout
    return (
        type(dropout) is nn.Dropout
        and not dropout.training
        and is_plain(parts.classifier, nn.Linear)
    )


def _fusible(layer: nn.Module) -> bool:
    if type(layer) is MBConv:
        return layer.fusible() is not None
    return type(layer) is ConvBnAct and layer.fusible() and layer.conv.groups == 1


def _slots(layer: nn.Module) -> Iterator[Slot]:
    """Where the tensors of the layer's step are, in order."""
    if isinstance(layer, nn.Linear):
        yield from ((layer._parameters, "weight"), (layer._parameters, "bias"))
    elif isinstance(layer, ConvBnAct):
        yield from ((layer.conv._parameters, "weight"), (layer.conv._parameters, "bias"))
        if isinstance(layer.bn, nn.Identity):
            yield from [({"none": None}, "none")] * 4
        else:
            yield from ((layer.bn._parameters, "weight"), (layer.bn._parameters, "bias"))
            yield from ((layer.bn._buffers, "running_mean"), (layer.bn._buffers, "running_var"))
    elif isinstance(layer, MBConv):
        for part in (layer.expand, layer.depthwise):
            yield from [({"none": None}, "none")] * 6 if part is None else _slots(part)
        squeeze = layer.squeeze_excite
        if squeeze is None:
            yield from [({"none": None}, "none")] * 4
        else:
            for conv in (squeeze.reduce, squeeze.expand):
                yield from ((conv._parameters, "weight"), (conv._parameters, "bias"))
        yield from _slots(layer.project)


def _steps(
    layers: list[nn.Module], size: tuple[int, int], image_norm: Sequence[Tensor]
) -> Iterator[Step]:
    """The layers for images of this size, normalised by the first of them if there is something to do it with."""
    x = torch.empty(
        1, 1, *size, device="meta"
    )  # stands for a feature map: its height and width are read
    last = [layer for layer in layers if not isinstance(layer, nn.Linear)][-1]
    for layer in layers:
        tensors = [values[name] for values, name in _slots(layer)]
        if layer is layers[0]:
            tensors += image_norm
        if isinstance(layer, nn.Linear):
            yield Step("linear", tensors)
            return
        if isinstance(layer, MBConv):
            window = layer.depthwise
            parts = (layer.expand, layer.depthwise, layer.project)
            eps = tuple(_eps(part) for part in parts)
            activation = layer.fusible()
        else:
            assert isinstance(layer, ConvBnAct)
            window, eps, activation = layer, (_eps(layer),), activation_name(layer.act)
        assert activation is not None
        stride, dilation = _pair(window.conv.stride), _pair(window.conv.dilation)
        padding = window.padding(x)
        name = "mbconv" if isinstance(layer, MBConv) else "conv_bn_act"
        if layer is last:
            name = "pointwise_conv_bn_act_pool"
        residual = isinstance(layer, MBConv) and layer.residual
        yield Step(name, tensors, eps, activation, stride, padding, dilation, residual)
        kernel = window.conv.kernel_size
        x = x.new_empty(1, 1, *output_size(x.shape[2:], kernel, stride, padding, dilation))


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return value[0], value[1]


def _eps(part: ConvBnAct | None) -> float:
    bn = None if part is None else part.operands().bn
    return 0.0 if bn is None else bn.eps


_known: weakref.WeakKeyDictionary[nn.Module, _Layers] = weakref.WeakKeyDictionary()


class Logits(NamedTuple):
    """What came out: (N, classes) in the network's dtype; or, ``pooled``, the (N, C) means in float32."""

    values: Tensor
    pooled: bool


def run_whole(
    network: nn.Module, parts: Callable[[], Parts], x: Tensor, image_norm: Sequence[Tensor]
) -> Logits | None:
    """What a classifier makes of ``x``, by one op; without its classifier, where that is no linear layer.

    None where the layers have to run one by one: something is hooked, in training or replaced, a gradient
    is wanted, x is no ordinary uint8, float32 or 16-bit tensor, PyTorch compiles, transforms or traces the
    call, or no backend has the op.

    Args:
        network: whose layers they are.
        parts: gives them.
        x: (N, C, H, W), best in NCHW or channels_last memory.
        image_norm: mean and standard deviation of ``x`` where that is uint8, else empty.
    """
    if not dispatch.merely_runs():
        return None
    found = _arguments(network, parts, x, image_norm)
    if isinstance(found, str):
        dispatch.decline(NETWORK.name, found)
        return None
    arguments, pooled = found
    run = dispatch.choose(NETWORK.name, x.device.type, arguments, composite=True)
    return None if run is None else Logits(run(*arguments), pooled)


def _arguments(
    network: nn.Module, parts: Callable[[], Parts], x: Tensor, image_norm: Sequence[Tensor]
) -> tuple[tuple[Any, ...], bool] | str:
    """Those of the op, and whether it leaves the classifier out; or why the layers have to run one by one."""
    if network.training:
        return "the model is in training mode"
    if type(x) is not Tensor:
        return f"the input is a {type(x).__name__}"
    if x.dtype not in _DTYPES and not image_norm:
        return f"it takes uint8, float32, bfloat16 and float16, not {x.dtype}"
    if dispatch.autocast_enabled(x.device.type):
        return "torch.autocast is on"
    if _METHODS & vars(network).keys():
        return "a method of the model is replaced"
    known = _known.get(network)
    hooked = known is not None and known.hooked()
    if not hooked and (known is None or known.changed()):
        known = _known[network] = _Layers(network, parts())
        hooked = known.hooked()
    if hooked or known is None:
        return "there are hooks"
    if not known.fusible:
        return "a layer is in training, or not what the ops compute"
    arguments = known.arguments(x, image_norm)
    if arguments is None:
        return "a gradient is wanted, or a parameter is no plain tensor"
    return arguments, not known.linear
