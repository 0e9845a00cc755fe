"""A classifier's layers as steps: one op for the stem, one for each block, one for the head, and the classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from effkernels.models.parts import Parts
from effkernels.nn import ConvBnAct, MBConv
from effkernels.nn.conv_bn_act import activation_name
from effkernels.ops._steps import LINEAR, Network, Step
from effkernels.reference.convolution import output_size

Slot = tuple[dict[str, Any], str]
"""A module's parameters or buffers, and a name in them."""

_BN = {"bn_weight": "weight", "bn_bias": "bias"}
_STATISTICS = ("running_mean", "running_var")
_VECTORS = ("bias", *_BN, *_STATISTICS)


class Misfit(Exception):  # noqa: N818 - no error of the user's: the layers have to say it
    """Why the ops do not take the layers' tensors as they are."""


def tensor_slots(parts: Parts) -> dict[str, Slot]:
    """Where the tensors of the steps are, also those that are None, by names for :func:`steps_of`."""
    slots = _conv_slots("stem", parts.stem)
    for i, block in enumerate(parts.blocks):
        for part in ("expand", "depthwise", "project"):
            layer = getattr(block, part)
            if layer is not None:
                slots |= _conv_slots(f"{i}.{part}", layer)
        if block.squeeze_excite is not None:
            for part in ("reduce", "expand"):
                conv = getattr(block.squeeze_excite, part)
                slots |= _parameters(f"{i}.se_{part}", conv)
    if parts.head is not None:
        slots |= _conv_slots("head", parts.head)
    if parts.classifier is not None:
        slots |= _parameters("classifier", parts.classifier)
    return slots


def _parameters(path: str, module: nn.Module) -> dict[str, Slot]:
    return {f"{path}.{name}": (module._parameters, name) for name in ("weight", "bias")}


def _conv_slots(path: str, layer: ConvBnAct) -> dict[str, Slot]:
    slots, bn = _parameters(path, layer.conv), layer.bn
    if not isinstance(bn, nn.Identity):
        slots |= {f"{path}.{name}": (bn._parameters, own) for name, own in _BN.items()}
        slots |= {f"{path}.{name}": (bn._buffers, name) for name in _STATISTICS}
    return slots


def steps_of(
    parts: Parts,
    tensors: Mapping[str, Tensor],
    x: Tensor,
    normed: bool,
    maps: Sequence[int] = (),
) -> Network:
    """The steps for images like ``x``, whose height, width, channels and device count.

    Args:
        parts: the layers.
        tensors: those of :func:`tensor_slots` that there are. Steps refer to them by their number.
        x: (N, C, H, W).
        normed: behind the tensors come the mean and standard deviation that the stem normalises images with.
        maps: numbers of the steps whose feature maps are wanted; none for what the last step makes. The head's result
            is a map then, and not its mean.

    Raises:
        Misfit: shapes, dtypes or devices differ from what an op takes. The layers then say so themselves.
    """
    builder = _Builder(tensors, x)
    builder.stem(parts.stem, normed)
    for i, block in enumerate(parts.blocks):
        builder.block(str(i), block)
    if parts.head is not None:
        builder.head(parts.head, bool(maps))
    if parts.classifier is not None:
        builder.classifier()
    last = max(maps, default=len(builder.steps) - 1)
    return Network(tuple(builder.steps[: last + 1]), tuple(builder.matrices), tuple(maps))


class _Builder:
    def __init__(self, tensors: Mapping[str, Tensor], x: Tensor) -> None:
        self.steps: list[Step] = []
        self.matrices: list[int] = []
        self._tensors = tensors
        self._places = {name: place for place, name in enumerate(tensors)}
        self._channels, *self._size = x.shape[1:]
        self._dtype = tensors["stem.weight"].dtype
        if any(tensor.device != x.device for tensor in tensors.values()):
            raise Misfit("not all tensors are on the device of the input")

    def stem(self, layer: ConvBnAct, normed: bool) -> None:
        conv = layer.conv
        own = self._conv("stem", "", (self._channels, *conv.kernel_size))
        if normed:
            own |= {"mean": len(self._places), "std": len(self._places) + 1}
        options = {
            "eps": _eps(layer),
            **self._window(layer),
            "dilation": list(conv.dilation),
            "activation": activation_name(layer.act),
        }
        self.steps.append(Step("conv_bn_act", own, options))

    def block(self, i: str, block: MBConv) -> None:
        before = self._channels, self._size
        layers: dict[str, ConvBnAct | None] = {
            "expand": block.expand,
            "depthwise": block.depthwise,
            "project": block.project,
        }
        own: dict[str, int] = {}
        options: dict[str, Any] = {f"{name}_eps": _eps(part) for name, part in layers.items()}
        if block.expand is not None:
            own |= self._pointwise(f"{i}.expand", "expand_")
        wide = self._channels
        own |= self._conv(f"{i}.depthwise", "depthwise_", (1, *block.depthwise.conv.kernel_size))
        if self._channels != wide:
            raise Misfit(f"block {i} has {wide} channels and {self._channels} depthwise kernels")
        options |= self._window(block.depthwise)
        if block.squeeze_excite is not None:
            own |= self._gate(i, block)
        own |= self._pointwise(f"{i}.project", "project_")
        if block.residual and before != (self._channels, self._size):
            raise Misfit(f"block {i} adds maps of two shapes")
        options |= {"residual": block.residual, "activation": block.fusible()}
        self.steps.append(Step("mbconv", own, options))

    def head(self, layer: ConvBnAct, maps: bool) -> None:
        own = self._pointwise("head", "")
        options = {"eps": _eps(layer), "activation": activation_name(layer.act)}
        op = "pointwise_conv_bn_act" if maps else "pointwise_conv_bn_act_pool"
        self.steps.append(Step(op, own, options))

    def classifier(self) -> None:
        own = self._weight("classifier", "", (self._channels,))
        self.steps.append(Step(LINEAR, own, {}))

    def _weight(self, path: str, prefix: str, shape: tuple[int, ...]) -> dict[str, int]:
        """A weight whose dimensions but the first, the new channels, are ``shape``; and the bias."""
        weight = self._tensors.get(f"{path}.weight")
        if weight is None or weight.shape[1:] != shape or weight.dtype != self._dtype:
            found = None if weight is None else f"{tuple(weight.shape)} {weight.dtype}"
            raise Misfit(f"{path} has weights {found}, where {self._dtype} (.., *{shape}) follows")
        self._channels = weight.shape[0]
        return self._vectors(path, prefix, ("weight",), None) | self._vectors(
            path, prefix, ("bias",), self._channels
        )

    def _vectors(
        self, path: str, prefix: str, names: Sequence[str], channels: int | None
    ) -> dict[str, int]:
        own = {}
        for name in names:
            tensor = self._tensors.get(f"{path}.{name}")
            if tensor is not None:
                if channels is not None and tensor.shape != (channels,):
                    raise Misfit(
                        f"{path}.{name} has shape {tuple(tensor.shape)}, not ({channels},)"
                    )
                own[prefix + name] = self._places[f"{path}.{name}"]
        return own

    def _conv(self, path: str, prefix: str, shape: tuple[int, ...]) -> dict[str, int]:
        own = self._weight(path, prefix, shape)
        return own | self._vectors(path, prefix, _VECTORS, self._channels)

    def _pointwise(self, path: str, prefix: str) -> dict[str, int]:
        own = self._conv(path, prefix, (self._channels, 1, 1))
        self.matrices.append(own[f"{prefix}weight"])
        return own

    def _gate(self, i: str, block: MBConv) -> dict[str, int]:
        wide = self._channels
        assert block.squeeze_excite is not None
        own: dict[str, int] = {}
        for name, conv in (
            ("se_reduce", block.squeeze_excite.reduce),
            ("se_expand", block.squeeze_excite.expand),
        ):
            if conv.padding not in ((0, 0), "valid"):
                raise Misfit(f"block {i} pads the means of its squeeze-excitation")
            own |= self._weight(f"{i}.{name}", f"{name}_", (self._channels, 1, 1))
            self.matrices.append(own[f"{name}_weight"])
        if self._channels != wide:
            raise Misfit(f"block {i} has {wide} channels and {self._channels} gates")
        return own

    def _window(self, layer: ConvBnAct) -> dict[str, Any]:
        """How the layer's kernel moves over the map, which becomes what it makes."""
        conv = layer.conv
        map_: Any = SimpleNamespace(shape=torch.Size((1, 1, *self._size)))
        padding, stride = layer.padding(map_), list(conv.stride)
        self._size = list(
            output_size(self._size, conv.kernel_size, stride, padding, list(conv.dilation))
        )
        if min(self._size) < 1:
            raise Misfit("a kernel does not fit into its map")
        return {"stride": stride, "padding": list(padding)}


def _eps(layer: ConvBnAct | None) -> float:
    bn: Any = None if layer is None else layer.bn
    return 0.0 if bn is None or isinstance(bn, nn.Identity) else bn.eps
