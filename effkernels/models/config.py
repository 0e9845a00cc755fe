"""What describes an architecture: stages of blocks, and how compound scaling stretches them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from effkernels.models.scaling import (
    Coefficients,
    CompoundScale,
    check_count,
    check_positive,
    round_filters,
    round_repeats,
    round_resolution,
)

BlockType = Literal["mbconv", "depthwise_separable", "fused_mbconv", "bottleneck", "separable_conv"]


@dataclass(frozen=True)
class StageConfig:
    """One row of a table of stages, before scaling.

    Args:
        repeats: blocks.
        kernel_size: of the convolution in the middle, or of the only one that is not 1x1.
        stride: of the first block.
        expand_ratio: inner width of a block over its input's; of a bottleneck, its output's over its
            inner width (4 in ResNets).
        out_channels: of every block.
        se_ratio: width inside squeeze-excitation over that of the block's input, of a bottleneck over that of
            its output; 0 for none, as in EfficientNetV2's fused blocks and in ResNets.
        block: type of the blocks, a layer of :mod:`effkernels.nn`: "mbconv"
            (:class:`~effkernels.nn.MBConv`), "depthwise_separable" (the same, which does not expand),
            "fused_mbconv" (:class:`~effkernels.nn.FusedMBConv`), "bottleneck"
            (:class:`~effkernels.nn.Bottleneck`) or "separable_conv" (:class:`~effkernels.nn.SeparableConv`,
            which neither expands nor squeezes).

    Raises:
        TypeError, ValueError: a value out of range, or what blocks of this type do not have.
    """

    repeats: int
    kernel_size: int
    stride: int
    expand_ratio: int
    out_channels: int
    se_ratio: float = 0.25
    block: BlockType = "mbconv"

    def __post_init__(self) -> None:
        for name in ("repeats", "kernel_size", "stride", "expand_ratio", "out_channels"):
            check_count(name, getattr(self, name))
        if not self.se_ratio >= 0.0:
            raise ValueError(f"se_ratio must be at least 0, got {self.se_ratio}")
        if self.block not in get_args(BlockType):
            raise ValueError(
                f"block must be one of {', '.join(get_args(BlockType))}, got {self.block!r}"
            )
        if self.block in ("depthwise_separable", "separable_conv") and self.expand_ratio != 1:
            raise ValueError(
                f"a {self.block} stage has expand_ratio=1, got {self.expand_ratio}: a block "
                f"that expands is 'mbconv'"
            )
        if self.block == "separable_conv" and self.se_ratio:
            raise ValueError(
                f"a separable_conv stage has se_ratio=0, got {self.se_ratio:g}: a block with "
                f"squeeze-excitation is 'depthwise_separable'"
            )


# Tan and Le 2019 (arXiv 1905.11946), Table 1: repeats, kernel, stride, expand ratio, channels.
EFFICIENTNET_STAGES = (
    StageConfig(1, 3, 1, 1, 16),
    StageConfig(2, 3, 2, 6, 24),
    StageConfig(2, 5, 2, 6, 40),
    StageConfig(3, 3, 2, 6, 80),
    StageConfig(3, 5, 1, 6, 112),
    StageConfig(4, 5, 2, 6, 192),
    StageConfig(1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class BlockConfig:
    """One block after scaling.

    ``inner_channels`` are those between the block's first convolution and its last; ``squeeze_channels`` is 0 where
    there is no squeeze-excitation.
    """

    stage: int
    index: int
    in_channels: int
    out_channels: int
    inner_channels: int
    kernel_size: int
    stride: int
    expand_ratio: int
    squeeze_channels: int
    drop_path: float
    block: BlockType = "mbconv"

    @property
    def same_shape(self) -> bool:
        """Whether the output has the shape of the input."""
        return self.stride == 1 and self.in_channels == self.out_channels

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output; by a bottleneck always, if need be through a convolution."""
        if self.block == "separable_conv":
            return False
        return self.same_shape or self.block == "bottleneck"


@dataclass(frozen=True)
class EfficientNetConfig:
    """A whole network: unscaled stages, the coefficients that scale them, and the training defaults.

    Args:
        name: of the model.
        coefficients: multipliers of width and depth, resolution, dropout.
        stages: from the stem to the head.
        stem_channels, stem_stride, stem_kernel_size: of the convolution on the image; the width before scaling.
        stem_pool: a 3x3 max-pool of stride 2 follows it, as in ResNets.
        head_channels: of the 1x1 convolution behind the stages, before scaling; 0 for none: what the last stage
            makes is pooled.
        channel_divisor: scaled widths are rounded to multiples of it (:func:`round_filters`).
        activation: as in :class:`~effkernels.nn.ConvBnAct`.
        fix_stem_and_head: leave the stem, the head and the repeats of the first and last stage
            unscaled (EfficientNet-Lite).
        dropout: probability before the classifier.
        drop_path: rate that the last block approaches; block i of N gets ``drop_path * i / N``.
        bn_eps, bn_momentum: BatchNorm's, in PyTorch's sense.
        padding: "symmetric", or "same" (TensorFlow's).

    Raises:
        TypeError, ValueError: a value out of range; ``stem_pool``, which pads symmetrically, with another padding.
    """

    name: str
    coefficients: Coefficients
    stages: tuple[StageConfig, ...] = EFFICIENTNET_STAGES
    stem_channels: int = 32
    head_channels: int = 1280
    activation: str = "silu"
    fix_stem_and_head: bool = False
    dropout: float = 0.2
    drop_path: float = 0.2
    bn_eps: float = 1e-3
    bn_momentum: float = 0.01
    padding: str = "symmetric"
    stem_stride: int = 2
    channel_divisor: int = 8
    stem_kernel_size: int = 3
    stem_pool: bool = False

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages must hold at least one stage")
        for name in ("stem_channels", "stem_stride", "stem_kernel_size", "channel_divisor"):
            check_count(name, getattr(self, name))
        check_count("head_channels", self.head_channels, minimum=0)
        for name in ("dropout", "drop_path"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.padding not in ("symmetric", "same"):
            raise ValueError(f"padding must be 'symmetric' or 'same', got {self.padding!r}")
        if self.stem_pool and self.padding != "symmetric":
            raise ValueError(
                f"stem_pool pads symmetrically: padding must be 'symmetric', got {self.padding!r}"
            )
        if not self.bn_eps > 0.0:
            raise ValueError(f"bn_eps must be above 0, got {self.bn_eps}")
        if not 0.0 <= self.bn_momentum <= 1.0:
            raise ValueError(
                f"bn_momentum must lie in [0, 1], got {self.bn_momentum} (PyTorch's sense: the weight "
                f"of the new batch; TensorFlow's 0.99 is 0.01 here)"
            )

    def scale(
        self,
        *,
        depth: float = 1.0,
        width: float = 1.0,
        resolution: float = 1.0,
        dropout: float | None = None,
        name: str | None = None,
    ) -> EfficientNetConfig:
        """This network with its own coefficients multiplied by factors, in any dimension alone or in several.

        Channels are rounded to ``channel_divisor``, repeats up, and the resolution to whole pixels.

        Args:
            depth, width, resolution: factors, above 0.
            dropout: of the result; this network's own where None.
            name: of the result; made from the factors where None.

        Raises:
            TypeError, ValueError: a factor that is not a number, not above 0 or not finite.
        """
        factors = {"depth": depth, "width": width, "resolution": resolution}
        for factor, value in factors.items():
            check_positive(factor, value)
        own, rate = self.coefficients, self.dropout if dropout is None else dropout
        side = round_resolution(own.resolution * resolution)
        if name is None:
            listed = ", ".join(f"{n}={value:g}" for n, value in factors.items() if value != 1.0)
            name = f"{self.name}({listed})" if listed else self.name
        coefficients = Coefficients(own.width * width, own.depth * depth, side, rate)
        return replace(self, name=name, coefficients=coefficients, dropout=rate)

    def compound(self, scale: CompoundScale) -> EfficientNetConfig:
        """This network with depth and width multiplied by the factors of ``scale``, at the resolution of ``scale``.

        Dropout rises with phi, from this network's own; see :meth:`CompoundScale.dropout_from`.
        """
        scaled = self.scale(
            depth=scale.depth,
            width=scale.width,
            dropout=scale.dropout_from(self.dropout),
            name=f"{self.name}(phi={scale.phi:g})",
        )
        coefficients = replace(scaled.coefficients, resolution=scale.resolution)
        return replace(scaled, coefficients=coefficients)

    @property
    def resolution(self) -> int:
        """Input side in pixels that the model was scaled for."""
        return self.coefficients.resolution

    @property
    def scaled_stem_channels(self) -> int:
        """Output channels of the stem."""
        return self._unless_fixed(self.stem_channels)

    @property
    def scaled_head_channels(self) -> int:
        """The features that are pooled: output channels of the head convolution, or of the last block without it."""
        if not self.head_channels:
            return self._width(self.stages[-1].out_channels)
        return self._unless_fixed(self.head_channels)

    def _unless_fixed(self, channels: int) -> int:
        return channels if self.fix_stem_and_head else self._width(channels)

    def _width(self, channels: float) -> int:
        return round_filters(channels, self.coefficients.width, self.channel_divisor)

    def _repeats(self, stage: int) -> int:
        repeats = self.stages[stage].repeats
        if self.fix_stem_and_head and stage in (0, len(self.stages) - 1):
            return repeats
        return round_repeats(repeats, self.coefficients.depth)

    def blocks(self) -> Iterator[BlockConfig]:
        """The blocks in order, scaled."""
        total = sum(self._repeats(s) for s in range(len(self.stages)))
        channels, position = self.scaled_stem_channels, 0
        for s, stage in enumerate(self.stages):
            out_channels = self._width(stage.out_channels)
            for index in range(self._repeats(s)):
                if stage.block == "bottleneck":
                    inner = self._width(stage.out_channels / stage.expand_ratio)
                    squeezed_of = out_channels
                else:
                    inner = channels * stage.expand_ratio
                    squeezed_of = channels
                yield BlockConfig(
                    stage=s,
                    index=index,
                    in_channels=channels,
                    out_channels=out_channels,
                    inner_channels=inner,
                    kernel_size=stage.kernel_size,
                    stride=stage.stride if index == 0 else 1,
                    expand_ratio=stage.expand_ratio,
                    squeeze_channels=max(1, int(squeezed_of * stage.se_ratio))
                    if stage.se_ratio
                    else 0,
                    drop_path=self.drop_path * position / total,
                    block=stage.block,
                )
                channels, position = out_channels, position + 1

    def reduction(self, stage: int) -> int:
        """Stride of a stage's output relative to the image."""
        pool = 2 if self.stem_pool else 1
        return math.prod((self.stem_stride, pool, *(s.stride for s in self.stages[: stage + 1])))
