"""Layers and blocks that are measured, taken from effkernels' own configurations."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from benchmarks.work import CPU, Device, Work
from effkernels.analysis import cost
from effkernels.models import get_config

_FLOAT_BYTES = 4
_BN_VECTORS = 4


@dataclass(frozen=True, kw_only=True)
class LayerCase:
    """``batch`` images there; ``used_by`` names the networks that have it."""

    batch: int = 1
    device: Device = CPU
    used_by: tuple[str, ...] = field(default=(), compare=False)

    def _key(self, name: str, activation: str, around: str = "") -> str:
        """Unique among all cases, and fit for a file name."""
        return f"{name}-batch{self.batch}-{activation}{around}{self.device.suffix}"

    def _work(self, elements: int, parameters: int, macs: int, *, floats: int = 0) -> Work:
        """Of one image's elements read or written and multiply-adds, parameters, and float32 values of an image."""
        own = self.device.dtype.itemsize * (self.batch * elements + parameters)
        return Work(own + self.batch * floats * _FLOAT_BYTES, self.batch * macs)


@dataclass(frozen=True)
class DepthwiseCase(LayerCase):
    """A depthwise convolution with its BatchNorm and activation."""

    channels: int
    height: int
    width: int
    kernel_size: int
    stride: int
    activation: str

    @property
    def key(self) -> str:
        """Unique among all cases, and fit for a file name."""
        name = f"depthwise-{self.channels}ch-{self.height}x{self.width}-{_window(self, 's')}"
        return self._key(name, self.activation)

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.channels} x {self.height} x {self.width}, {_window(self, '/')}"

    @property
    def depth(self) -> int:
        """Terms of a sum."""
        return self.kernel_size**2

    @property
    def work(self) -> Work:
        """The input read and the output written once, and the parameters."""
        outputs = self.channels * _pixels(self, self.stride)
        inputs = self.channels * self.height * self.width
        parameters = self.channels * (self.depth + _BN_VECTORS)
        return self._work(inputs + outputs, parameters, outputs * self.depth)


@dataclass(frozen=True)
class PointwiseCase(LayerCase):
    """A 1x1 convolution with its BatchNorm, and what surrounds it in the network.

    ``gated``: the squeeze-excitation gate multiplies its input. ``residual``: the block's input is added.
    """

    in_channels: int
    out_channels: int
    height: int
    width: int
    activation: str
    gated: bool
    residual: bool

    @property
    def key(self) -> str:
        """Unique among all cases, and fit for a file name."""
        name = f"pointwise-{self.in_channels}to{self.out_channels}-{self.height}x{self.width}"
        around = f"{'-gated' * self.gated}{'-residual' * self.residual}"
        return self._key(name, self.activation, around)

    @property
    def title(self) -> str:
        """For people."""
        around = f"{', gate' * self.gated}{', residual' * self.residual}"
        return f"{self.in_channels} > {self.out_channels}, {self.height} x {self.width}{around}"

    @property
    def depth(self) -> int:
        """Terms of a sum."""
        return self.in_channels

    @property
    def work(self) -> Work:
        """Every map once, and the parameters."""
        pixels = self.height * self.width
        maps = pixels * (self.in_channels + self.out_channels * (1 + self.residual))
        weights = self.in_channels * self.out_channels
        parameters = weights + _BN_VECTORS * self.out_channels
        return self._work(maps, parameters, pixels * weights, floats=self.in_channels * self.gated)


@dataclass(frozen=True)
class ConvCase(LayerCase):
    """A dense convolution with its BatchNorm and activation: the stem."""

    in_channels: int
    out_channels: int
    height: int
    width: int
    kernel_size: int
    stride: int
    activation: str

    @property
    def key(self) -> str:
        """Unique among all cases, and fit for a file name."""
        name = f"conv-{self.in_channels}to{self.out_channels}-{self.height}x{self.width}-{_window(self, 's')}"
        return self._key(name, self.activation)

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.in_channels} > {self.out_channels}, {self.height} x {self.width}, {_window(self, '/')}"

    @property
    def depth(self) -> int:
        """Terms of a sum."""
        return self.in_channels * self.kernel_size**2

    @property
    def work(self) -> Work:
        """The images read and the map written once, and the parameters."""
        outputs = self.out_channels * _pixels(self, self.stride)
        inputs = self.in_channels * self.height * self.width
        parameters = self.out_channels * (self.depth + _BN_VECTORS)
        return self._work(inputs + outputs, parameters, outputs * self.depth)


@dataclass(frozen=True)
class SqueezeExciteCase(LayerCase):
    """Squeeze-excitation of a map: mean, the products over ``hidden`` channels, and the gate multiplied in."""

    channels: int
    hidden: int
    height: int
    width: int
    activation: str

    @property
    def key(self) -> str:
        """Unique among all cases, and fit for a file name."""
        name = f"squeeze-{self.channels}ch-{self.hidden}-{self.height}x{self.width}"
        return self._key(name, self.activation)

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.channels} x {self.height} x {self.width}, {self.hidden} hidden"

    @property
    def depth(self) -> int:
        """Terms of a sum."""
        return self.channels

    @property
    def work(self) -> Work:
        """The map read for the means, read again and written; and the parameters."""
        maps = 3 * self.channels * self.height * self.width
        weights = 2 * self.channels * self.hidden
        return self._work(maps, weights + self.channels + self.hidden, weights)


@dataclass(frozen=True)
class BlockCase(LayerCase):
    """A whole MBConv block; ``expanded`` as many as ``in_channels`` where nothing expands, no ``hidden`` without SE."""

    in_channels: int
    expanded: int
    out_channels: int
    height: int
    width: int
    kernel_size: int
    stride: int
    hidden: int
    residual: bool
    activation: str

    @property
    def key(self) -> str:
        """Unique among all cases, and fit for a file name."""
        widths = f"{self.in_channels}to{self.expanded}to{self.out_channels}"
        name = f"block-{widths}-{self.height}x{self.width}-{_window(self, 's')}-se{self.hidden}"
        return self._key(name, self.activation, "-residual" * self.residual)

    @property
    def title(self) -> str:
        """For people."""
        widths = " > ".join(map(str, dict.fromkeys((self.in_channels, self.expanded))))
        return f"{widths} > {self.out_channels}, {self.height} x {self.width}, {_window(self, '/')}"

    @property
    def depth(self) -> int:
        """Terms of the last sum."""
        return self.expanded

    @property
    def expands(self) -> bool:
        """Whether there is a first 1x1 convolution."""
        return self.expanded != self.in_channels

    @property
    def work(self) -> Work:
        """Level 2's: the input, what comes of the depthwise convolution twice, the result, and the parameters."""
        inside, outside = self.height * self.width, _pixels(self, self.stride)
        maps = self.in_channels * inside + outside * (
            2 * self.expanded + self.out_channels * (1 + self.residual)
        )
        first = self.in_channels * self.expanded * self.expands
        squeeze, last = 2 * self.expanded * self.hidden, self.expanded * self.out_channels
        taps = self.expanded * self.kernel_size**2
        normed = self.expanded * (1 + self.expands) + self.out_channels
        biases = (self.expanded + self.hidden) * bool(self.hidden)
        parameters = first + taps + squeeze + last + _BN_VECTORS * normed + biases
        return self._work(maps, parameters, inside * first + outside * (taps + last) + squeeze)


def _window(case: DepthwiseCase | ConvCase | BlockCase, between: str) -> str:
    return f"{case.kernel_size}x{case.kernel_size}{between}{case.stride}"


def _pixels(case: DepthwiseCase | ConvCase | BlockCase, stride: int) -> int:
    return -(-case.height // stride) * -(-case.width // stride)


LayerCases = DepthwiseCase | PointwiseCase | ConvCase | SqueezeExciteCase | BlockCase
Layer = TypeVar("Layer", bound=LayerCase)


def short_name(model: str) -> str:
    """``efficientnet_b0`` as B0."""
    return model.removeprefix("efficientnet_").capitalize()


def depthwise(
    models: Sequence[str], *, batch: int = 1, device: Device = CPU
) -> list[DepthwiseCase]:
    """The distinct depthwise convolutions of these networks, in the order of the first."""
    found = (
        (DepthwiseCase(*layer.in_shape, layer.kernel_size, layer.stride, activation), model)
        for model, activation, layer, _ in _layers(models)
        if layer.kind == "depthwise"
    )
    return _distinct(found, batch, device)


def pointwise(
    models: Sequence[str], *, batch: int = 1, device: Device = CPU
) -> list[PointwiseCase]:
    """The distinct 1x1 convolutions of these networks, the head's too, in the order of the first."""
    found = (
        (
            PointwiseCase(
                layer.in_shape[0],
                layer.out_shape[0],
                *layer.in_shape[1:],
                activation="identity" if layer.kind == "project" else activation,
                gated=layer.kind == "project" and previous.kind == "squeeze_excite",
                residual=layer.residual,
            ),
            model,
        )
        for model, activation, layer, previous in _layers(models)
        if layer.kind in ("expand", "project", "head")
    )
    return _distinct(found, batch, device)


def stems(models: Sequence[str], *, batch: int = 1, device: Device = CPU) -> list[ConvCase]:
    """The first convolutions of these networks."""
    found = []
    for model in models:
        layer = cost.model_cost(model).layers[0]
        channels, height, width = layer.in_shape
        window = layer.kernel_size, layer.stride, get_config(model).activation
        found.append((ConvCase(channels, layer.out_shape[0], height, width, *window), model))
    return _distinct(found, batch, device)


def blocks(models: Sequence[str], *, batch: int = 1, device: Device = CPU) -> list[BlockCase]:
    """The distinct blocks of these networks, in the order of the first."""
    found = []
    for model in models:
        layers = {layer.name: layer for layer in cost.model_cost(model).layers}
        for block in get_config(model).blocks():
            name = f"stages.{block.stage}.{block.index}"
            depthwise = layers[f"{name}.depthwise"]
            first = layers.get(f"{name}.expand", depthwise)
            case = BlockCase(
                first.in_shape[0],
                block.expanded_channels,
                block.out_channels,
                *first.in_shape[1:],
                kernel_size=block.kernel_size,
                stride=block.stride,
                hidden=block.squeeze_channels or 0,
                residual=block.residual,
                activation=get_config(model).activation,
            )
            found.append((case, model))
    return _distinct(found, batch, device)


def squeeze_excites(
    models: Sequence[str], *, batch: int = 1, device: Device = CPU
) -> list[SqueezeExciteCase]:
    """The distinct squeeze-excitations of these networks' blocks, in the order of the first."""
    found = []
    for block in blocks(models):
        height, width = -(-block.height // block.stride), -(-block.width // block.stride)
        case = SqueezeExciteCase(block.expanded, block.hidden, height, width, block.activation)
        found += [(case, model) for model in block.used_by if block.hidden]
    return _distinct(found, batch, device)


def _layers(
    models: Sequence[str],
) -> Iterator[tuple[str, str, cost.LayerCost, cost.LayerCost]]:
    """(model, its activation, layer, the layer before) of all of them."""
    for model in models:
        layers = cost.model_cost(model).layers
        for previous, layer in itertools.pairwise(layers):
            yield model, get_config(model).activation, layer, previous


def _distinct(cases: Iterable[tuple[Layer, str]], batch: int, device: Device) -> list[Layer]:
    """Each case once, with the models that have it, on a batch there."""
    found: dict[Layer, list[str]] = {}
    for case, model in cases:
        users = found.setdefault(case, [])
        if short_name(model) not in users:
            users.append(short_name(model))
    return [
        replace(case, batch=batch, device=device, used_by=tuple(users))
        for case, users in found.items()
    ]
