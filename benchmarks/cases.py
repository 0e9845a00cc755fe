"""What is measured: networks and layers, taken from effkernels' own configurations."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch

from effkernels.models import get_config
from effkernels.scaling import cost

_FLOAT_BYTES = 4
_BN_VECTORS = 4


@dataclass(frozen=True)
class Work:
    """What a case cannot do without: bytes of memory traffic, and multiply-accumulates."""

    bytes: int
    macs: int


@dataclass(frozen=True)
class Device:
    """Where a case is computed, and in which type: names of a torch.device and a torch.dtype."""

    kind: str = "cpu"
    type: str = "float32"

    @property
    def dtype(self) -> torch.dtype:
        """Of maps and weights."""
        found: torch.dtype = getattr(torch, self.type)
        return found

    @property
    def suffix(self) -> str:
        """For the keys of cases; empty for float32 on a CPU."""
        return "" if self == CPU else f"-{self.kind}-{self.type}"

    @property
    def title(self) -> str:
        """For people."""
        return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[self.type]

    def put(self, what: Any) -> Any:
        """A tensor or a module there, in that type."""
        return what.to(self.kind, self.dtype)


CPU = Device()
DEFAULT_TYPES = {"cpu": "float32", "cuda": "bfloat16"}


def default_device() -> str:
    """The GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class NetworkCase:
    """A whole network on ``batch`` images of ``resolution`` x ``resolution`` pixels."""

    model: str
    resolution: int
    batch: int = 1
    device: Device = CPU

    @property
    def key(self) -> str:
        """Unique among all cases, and fit for a file name."""
        return f"{self.model}-{self.resolution}px-batch{self.batch}{self.device.suffix}"

    @property
    def title(self) -> str:
        """For people."""
        return f"{short_name(self.model)}@{self.resolution}, batch {self.batch}"

    @property
    def work(self) -> Work:
        """Feature maps of level 2 (expand and depthwise as one kernel) and the weights, once each."""
        total = cost.model_cost(
            self.model, self.resolution, batch_size=self.batch, dtype=self.device.dtype
        )
        return Work(total.bytes_moved.level2 + total.state_bytes, total.macs)


@dataclass(frozen=True)
class DepthwiseCase:
    """A depthwise convolution with its BatchNorm and activation."""

    channels: int
    height: int
    width: int
    kernel_size: int
    stride: int
    activation: str
    batch: int = 1
    device: Device = CPU
    used_by: tuple[str, ...] = field(default=(), compare=False)

    @property
    def key(self) -> str:
        """Unique among all cases, and fit for a file name."""
        window = f"{self.kernel_size}x{self.kernel_size}s{self.stride}"
        return (
            f"depthwise-{self.channels}ch-{self.height}x{self.width}-{window}-batch{self.batch}"
            f"-{self.activation}{self.device.suffix}"
        )

    @property
    def title(self) -> str:
        """For people."""
        window = f"{self.kernel_size}x{self.kernel_size}/{self.stride}"
        return f"{self.channels} x {self.height} x {self.width}, {window}"

    @property
    def work(self) -> Work:
        """The input read and the output written once, and the parameters."""
        outputs = self.channels * -(-self.height // self.stride) * -(-self.width // self.stride)
        inputs = self.channels * self.height * self.width
        parameters = self.channels * (self.kernel_size**2 + _BN_VECTORS)
        return Work(
            self.device.dtype.itemsize * (self.batch * (inputs + outputs) + parameters),
            self.batch * outputs * self.kernel_size**2,
        )


@dataclass(frozen=True)
class PointwiseCase:
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
    batch: int = 1
    device: Device = CPU
    used_by: tuple[str, ...] = field(default=(), compare=False)

    @property
    def key(self) -> str:
        """Unique among all cases, and fit for a file name."""
        around = f"{'-gated' * self.gated}{'-residual' * self.residual}"
        return (
            f"pointwise-{self.in_channels}to{self.out_channels}-{self.height}x{self.width}"
            f"-batch{self.batch}-{self.activation}{around}{self.device.suffix}"
        )

    @property
    def title(self) -> str:
        """For people."""
        around = f"{', gate' * self.gated}{', residual' * self.residual}"
        return f"{self.in_channels} > {self.out_channels}, {self.height} x {self.width}{around}"

    @property
    def work(self) -> Work:
        """Every map once, and the parameters."""
        pixels = self.batch * self.height * self.width
        maps = pixels * (self.in_channels + self.out_channels * (1 + self.residual))
        weights = self.in_channels * self.out_channels + _BN_VECTORS * self.out_channels
        gates = self.batch * self.in_channels * self.gated
        return Work(
            self.device.dtype.itemsize * (maps + weights) + _FLOAT_BYTES * gates,
            pixels * self.in_channels * self.out_channels,
        )


Case = NetworkCase | DepthwiseCase | PointwiseCase
Layer = TypeVar("Layer", DepthwiseCase, PointwiseCase)


def short_name(model: str) -> str:
    """``efficientnet_b0`` as B0."""
    return model.removeprefix("efficientnet_").capitalize()


def network(
    model: str, *, batch: int = 1, resolution: int | None = None, device: Device = CPU
) -> NetworkCase:
    """A network at its own resolution, or at another."""
    return NetworkCase(model, resolution or get_config(model).resolution, batch, device)


def depthwise(
    models: Sequence[str], *, batch: int = 1, device: Device = CPU
) -> list[DepthwiseCase]:
    """The distinct depthwise convolutions of these networks, in the order of the first."""
    return _distinct(
        (
            DepthwiseCase(
                *layer.in_shape, layer.kernel_size, layer.stride, activation, batch, device
            ),
            model,
        )
        for model, activation, layer, _ in _layers(models)
        if layer.kind == "depthwise"
    )


def pointwise(
    models: Sequence[str], *, batch: int = 1, device: Device = CPU
) -> list[PointwiseCase]:
    """The distinct 1x1 convolutions of these networks, the head's too, in the order of the first."""
    return _distinct(
        (
            PointwiseCase(
                layer.in_shape[0],
                layer.out_shape[0],
                *layer.in_shape[1:],
                activation="identity" if layer.kind == "project" else activation,
                gated=layer.kind == "project" and previous.kind == "squeeze_excite",
                residual=layer.residual,
                batch=batch,
                device=device,
            ),
            model,
        )
        for model, activation, layer, previous in _layers(models)
        if layer.kind in ("expand", "project", "head")
    )


def _layers(
    models: Sequence[str],
) -> Iterator[tuple[str, str, cost.LayerCost, cost.LayerCost]]:
    """(model, its activation, layer, the layer before) of all of them."""
    for model in models:
        layers = cost.model_cost(model).layers
        for previous, layer in itertools.pairwise(layers):
            yield model, get_config(model).activation, layer, previous


def _distinct(cases: Iterable[tuple[Layer, str]]) -> list[Layer]:
    """Each case once, with the models that have it."""
    found: dict[Layer, list[str]] = {}
    for case, model in cases:
        users = found.setdefault(case, [])
        if short_name(model) not in users:
            users.append(short_name(model))
    return [replace(case, used_by=tuple(users)) for case, users in found.items()]
