"""What a configuration costs: parameters, MACs, activations and bytes moved. Pure arithmetic.

No model is built, so a budget search can evaluate hundreds of sizes. A MAC is a multiply-accumulate of
a convolution or of the classifier; BatchNorm, activations, pooling, the multiplication by the gate and
additions are not counted. FLOPs are twice the MACs, and equal what ``torch.utils.flop_counter`` counts.

Bytes moved count a whole feature map each time it is read or written. Weights (see ``state_bytes``; a
batch shares them) and tensors of one value per channel are left out. Three executions:

- ``eager``: every op is a separate pass. A convolution reads its input and writes its output;
  BatchNorm and the activation each read and write it again; squeeze-excitation reads it to pool,
  then reads and writes it to apply the gate; a residual addition reads two maps and writes one; the
  last pool reads the head's output.
- ``level1``: a convolution with its BatchNorm, activation, pool, gate and residual is one pass. It
  reads its input (and the residual) and writes its output. The head is pooled in the same pass and
  writes no map.
- ``level2``: as level 1, with MBConv's expand and depthwise in one kernel: the expanded map is neither
  written nor read.

In all three, a max-pool behind the stem is a pass of its own, and so is the last pool of a network without a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from effkernels.models import BlockConfig, EfficientNetConfig, get_config
from effkernels.models.options import as_dtype
from effkernels.models.scaling import check_count

LINEAR = frozenset(("project", "shortcut", "restore"))
"""Kinds of layers without an activation of their own."""

Shape = tuple[int, int, int]
Execution = Literal["eager", "level1", "level2"]


def elements(shape: Shape) -> int:
    """Number of elements of one image's feature map."""
    channels, height, width = shape
    return channels * height * width


@dataclass(frozen=True)
class ByExecution:
    """One quantity, in bytes, for each of the three executions (see the module docstring)."""

    eager: int = 0
    level1: int = 0
    level2: int = 0

    def of(self, execution: Execution) -> int:
        """The value of one execution, by its name."""
        return {"eager": self.eager, "level1": self.level1, "level2": self.level2}[execution]

    def scaled(self, factor: int) -> ByExecution:
        """Every value times ``factor``."""
        return ByExecution(self.eager * factor, self.level1 * factor, self.level2 * factor)

    def __add__(self, other: ByExecution) -> ByExecution:
        """The sum for each execution."""
        return ByExecution(
            self.eager + other.eager, self.level1 + other.level1, self.level2 + other.level2
        )


@dataclass(frozen=True)
class LayerCost:
    """One layer, for a whole batch.

    ``name`` is the module's name (``stages.2.0.depthwise``); ``kind`` is stem, pool (behind the stem), expand,
    depthwise, squeeze_excite, project, head or classifier; in fused blocks fused_expand, or fused for the only
    convolution of a block that does not expand; in bottlenecks reduce, conv, shortcut or restore; behind the
    depthwise convolution of MobileNetV1 pointwise. Shapes are (C, H, W) of one
    image. ``activations`` counts the output elements of convolutions; ``buffers`` counts running means and
    variances. ``residual``: the result is added to the block's input, or to the output of ``shortcut``.
    """

    name: str
    kind: str
    in_shape: Shape
    out_shape: Shape
    kernel_size: int
    stride: int
    params: int
    buffers: int
    macs: int
    activations: int
    bytes_moved: ByExecution
    residual: bool = False


@dataclass(frozen=True)
class ModelCost:
    """Cost of one forward pass of a network over a whole batch; see :func:`model_cost`.

    ``print`` shows the totals; ``layers`` lists them layer by layer.
    """

    name: str
    resolution: tuple[int, int]
    batch_size: int
    dtype: torch.dtype
    layers: tuple[LayerCost, ...] = field(repr=False)

    def __repr__(self) -> str:
        """The totals, exact."""
        fields = ("name", "resolution", "batch_size", "dtype", "params", "macs", "activations")
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in (*fields, "bytes_moved"))
        return f"ModelCost({shown}, layers=<{len(self.layers)}>)"

    def __str__(self) -> str:
        """The totals, as readable text."""
        height, width = self.resolution
        moved = self.bytes_moved
        rows = {
            "parameters": f"{self.params:,}",
            "MACs": f"{self.macs:,}",
            "FLOPs": f"{self.flops:,}",
            "activations": f"{self.activations:,} elements",
            "bytes moved": f"{moved.eager:,} eager, {moved.level1:,} level 1, {moved.level2:,} level 2",
            "weights": f"{self.state_bytes:,} bytes",
        }
        dtype = str(self.dtype).removeprefix("torch.")
        images = "1 image" if self.batch_size == 1 else f"{self.batch_size} images"
        lines = (f"  {name:<12} {value}" for name, value in rows.items())
        return "\n".join((f"{self.name}, {images} of {height} x {width}, {dtype}", *lines))

    @cached_property
    def params(self) -> int:
        """Trainable parameters, independent of the batch."""
        return sum(layer.params for layer in self.layers)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and classifier."""
        return sum(layer.macs for layer in self.layers)

    @property
    def flops(self) -> int:
        """2 * macs, as ``FlopCounterMode`` counts. Papers often call MACs FLOPs.

        With 'same' padding the plain PyTorch path computes one row and one column more than are needed,
        and the counter counts those too.
        """
        return 2 * self.macs

    @cached_property
    def activations(self) -> int:
        """Output elements of convolutions and classifier."""
        return sum(layer.activations for layer in self.layers)

    @cached_property
    def bytes_moved(self) -> ByExecution:
        """Bytes of feature maps read and written, without weights."""
        return sum((layer.bytes_moved for layer in self.layers), start=ByExecution())

    @property
    def state_bytes(self) -> int:
        """Bytes of parameters and buffers in ``dtype``."""
        return self.state_bytes_in(self.dtype)

    def state_bytes_in(self, dtype: torch.dtype) -> int:
        """The same in another dtype; BatchNorm's batch counters are int64 in every dtype."""
        state = self.params + sum(layer.buffers for layer in self.layers)
        counters = sum(1 for layer in self.layers if layer.buffers)
        return state * dtype.itemsize + 8 * counters


def resolve_config(model: str | EfficientNetConfig) -> EfficientNetConfig:
    """``model`` itself if it is a configuration, else the configuration of the model of that name.

    Raises:
        ValueError: no model has that name; the message lists the closest names.
        TypeError: ``model`` is neither a name nor a configuration.
    """
    if isinstance(model, EfficientNetConfig):
        return model
    if not isinstance(model, str):
        raise TypeError(
            "model must be a name or an EfficientNetConfig (a model's .config), "
            f"got {type(model).__name__}"
        )
    return get_config(model)


def model_cost(
    model: str | EfficientNetConfig,
    resolution: int | tuple[int, int] | None = None,
    *,
    batch_size: int = 1,
    dtype: torch.dtype | str = torch.float32,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> ModelCost:
    """Count what one forward pass costs.

    Args:
        model: a model's name, or a configuration.
        resolution: input side in pixels, or (H, W); None for the model's own.
        batch_size: images; all figures except parameters and state are for the whole batch.
        dtype: of weights and activations, also by name ("bfloat16", "bf16"); determines the bytes.
        num_classes, in_channels: as in ``create_model``.

    Raises:
        ValueError: unknown name; a size below 1; ``num_classes`` or ``batch_size`` below 0.
        TypeError: an argument is not a model, not an int, or not a floating-point dtype.
    """
    config = resolve_config(model)
    height, width = _check_resolution(config.resolution if resolution is None else resolution)
    check_count("batch_size", batch_size, minimum=0)
    check_count("num_classes", num_classes, minimum=0)
    check_count("in_channels", in_channels, minimum=1)
    dtype = check_dtype("dtype", dtype)
    walk = _Walk(batch_size, dtype.itemsize, in_channels, height, width)
    return ModelCost(
        name=config.name,
        resolution=(height, width),
        batch_size=batch_size,
        dtype=dtype,
        layers=tuple(walk.network(config, num_classes)),
    )


def check_dtype(name: str, dtype: torch.dtype | str) -> torch.dtype:
    """``dtype`` as a floating-point torch.dtype, given as itself or by name; errors name the argument."""
    if isinstance(dtype, str):
        return as_dtype(name, dtype)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"{name} must be a floating-point torch.dtype, got {dtype!r}")
    return dtype


def _check_resolution(resolution: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(resolution, int):
        resolution = resolution, resolution
    if not isinstance(resolution, Sequence):
        raise TypeError(f"resolution must be a side or (H, W) in pixels, got {resolution!r}")
    if len(resolution) != 2:
        raise ValueError(f"resolution must be a side or (H, W) in pixels, got {resolution!r}")
    height, width = resolution
    return check_count("resolution", height), check_count("resolution", width)


def _window(block: BlockConfig) -> dict[str, Any]:
    return {"kernel_size": block.kernel_size, "stride": block.stride}


class _Walk:
    """Goes through the network once, keeping the shape of the current feature map."""

    def __init__(self, batch_size: int, itemsize: int, channels: int, height: int, width: int):
        self.batch_size = batch_size
        self.itemsize = itemsize
        self.shape: Shape = (channels, height, width)

    def network(self, config: EfficientNetConfig, num_classes: int) -> Iterator[LayerCost]:
        yield self._conv(
            "stem",
            "stem",
            config.scaled_stem_channels,
            kernel_size=config.stem_kernel_size,
            stride=config.stem_stride,
        )
        if config.stem_pool:
            yield self._max_pool()
        for block in config.blocks():
            yield from self._block(f"stages.{block.stage}.{block.index}", block)
        if config.head_channels:
            yield self._conv("head", "head", config.scaled_head_channels)
            yield self._classifier(num_classes)
        else:
            yield self._classifier(num_classes, pooled=elements(self.shape))

    def _block(self, name: str, block: BlockConfig) -> Iterator[LayerCost]:
        if block.block == "fused_mbconv":
            return self._fused_mbconv(name, block)
        if block.block == "bottleneck":
            return self._bottleneck(name, block)
        if block.block == "separable_conv":
            return self._separable_conv(name, block)
        return self._mbconv(name, block)

    def _mbconv(self, name: str, block: BlockConfig) -> Iterator[LayerCost]:
        expands = block.expand_ratio != 1
        window = _window(block)
        if expands:
            yield self._conv(f"{name}.expand", "expand", block.inner_channels)
        depthwise = f"{name}.depthwise"
        yield self._conv(
            depthwise, "depthwise", block.inner_channels, **window, after_expand=expands
        )
        if block.squeeze_channels:
            yield self._squeeze_excite(f"{name}.squeeze_excite", block.squeeze_channels)
        yield self._conv(f"{name}.project", "project", block.out_channels, residual=block.residual)

    def _separable_conv(self, name: str, block: BlockConfig) -> Iterator[LayerCost]:
        yield self._conv(f"{name}.depthwise", "depthwise", block.inner_channels, **_window(block))
        yield self._conv(f"{name}.pointwise", "pointwise", block.out_channels)

    def _fused_mbconv(self, name: str, block: BlockConfig) -> Iterator[LayerCost]:
        expands = block.expand_ratio != 1
        window = _window(block)
        if expands:
            yield self._conv(f"{name}.expand", "fused_expand", block.inner_channels, **window)
        if block.squeeze_channels:
            # No kernel gates the input of a k x k convolution as it reads it.
            alone = ByExecution(3) if expands else ByExecution(3, 3, 3)
            yield self._squeeze_excite(
                f"{name}.squeeze_excite", block.squeeze_channels, passes=alone
            )
        project, residual = f"{name}.project", block.residual
        if expands:
            yield self._conv(project, "project", block.out_channels, residual=residual)
        else:
            yield self._conv(project, "fused", block.out_channels, **window, residual=residual)

    def _bottleneck(self, name: str, block: BlockConfig) -> Iterator[LayerCost]:
        before, inner, out = self.shape, block.inner_channels, block.out_channels
        squeezed = block.squeeze_channels
        yield self._conv(f"{name}.reduce", "reduce", inner)
        window = _window(block)
        yield self._conv(f"{name}.conv", "conv", inner, **window)
        if not block.same_shape:
            after, self.shape = self.shape, before
            yield self._conv(f"{name}.shortcut", "shortcut", out, stride=block.stride)
            self.shape = after
        yield self._conv(f"{name}.restore", "restore", out, residual=not squeezed)
        if squeezed:  # gated, added and activated; nothing follows that could do it as it reads
            yield self._squeeze_excite(
                f"{name}.squeeze_excite", squeezed, passes=ByExecution(8, 3, 3), residual=True
            )

    def _conv(
        self,
        name: str,
        kind: str,
        out_channels: int,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        residual: bool = False,
        after_expand: bool = False,
    ) -> LayerCost:
        """A convolution without bias, its BatchNorm and, except for ``LINEAR``, its activation."""
        channels, height, width = in_shape = self.shape
        # For odd kernels, symmetric and 'same' padding give the same output size.
        self.shape = (out_channels, -(-height // stride), -(-width // stride))
        read, written = elements(in_shape), elements(self.shape)
        fan_in = kernel_size**2 * (1 if kind == "depthwise" else channels)
        # An activation follows most convolutions, and the addition of a bottleneck.
        activated = kind not in LINEAR or (kind == "restore" and residual)
        passes_after_conv = 2 * activated + 2 + 3 * residual + (kind == "head")
        level1 = read + written * ((kind != "head") + residual)
        stays_on_chip = written if kind == "expand" else read * after_expand
        moved = ByExecution(
            read + written * (1 + passes_after_conv), level1, level1 - stays_on_chip
        )
        return LayerCost(
            name=name,
            kind=kind,
            in_shape=in_shape,
            out_shape=self.shape,
            kernel_size=kernel_size,
            stride=stride,
            params=out_channels * (fan_in + 2),
            buffers=2 * out_channels,
            macs=self.batch_size * written * fan_in,
            activations=self.batch_size * written,
            bytes_moved=moved.scaled(self.batch_size * self.itemsize),
            residual=residual,
        )

    def _squeeze_excite(
        self,
        name: str,
        squeezed: int,
        *,
        passes: ByExecution = ByExecution(3),
        residual: bool = False,
    ) -> LayerCost:
        """``passes`` over the map: in eager to pool it, and to read and write it for the gate's product."""
        channels = self.shape[0]
        weights = 2 * channels * squeezed
        outputs = channels + squeezed
        return LayerCost(
            name=name,
            kind="squeeze_excite",
            in_shape=self.shape,
            out_shape=self.shape,
            kernel_size=1,
            stride=1,
            params=weights + outputs,
            buffers=0,
            macs=self.batch_size * weights,
            activations=self.batch_size * outputs,
            bytes_moved=passes.scaled(elements(self.shape) * self.batch_size * self.itemsize),
            residual=residual,
        )

    def _max_pool(self) -> LayerCost:
        channels, height, width = in_shape = self.shape
        self.shape = (channels, -(-height // 2), -(-width // 2))
        moved = (elements(in_shape) + elements(self.shape)) * self.batch_size * self.itemsize
        return LayerCost(
            name="stem_pool",
            kind="pool",
            in_shape=in_shape,
            out_shape=self.shape,
            kernel_size=3,
            stride=2,
            params=0,
            buffers=0,
            macs=0,
            activations=0,
            bytes_moved=ByExecution(moved, moved, moved),
        )

    def _classifier(self, num_classes: int, *, pooled: int = 0) -> LayerCost:
        """``pooled``: elements of the map that is read to pool it, where no head has done that."""
        channels = self.shape[0]
        read = pooled * self.batch_size * self.itemsize
        return LayerCost(
            name="classifier",
            kind="classifier",
            in_shape=(channels, 1, 1),
            out_shape=(num_classes, 1, 1),
            kernel_size=1,
            stride=1,
            params=(channels + 1) * num_classes,
            buffers=0,
            macs=self.batch_size * channels * num_classes,
            activations=self.batch_size * num_classes,
            bytes_moved=ByExecution(read, read, read),
        )
