"""EfficientNet architectures as data: the paper's block table and how compound scaling stretches it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from effkernels.models.scaling import NAMED, Coefficients, round_filters, round_repeats


@dataclass(frozen=True)
class StageConfig:
    """One row of Table 1 of the paper, before scaling. ``se_ratio`` is relative to the block's input width."""

    repeats: int
    kernel_size: int
    stride: int
    expand_ratio: int
    out_channels: int
    se_ratio: float = 0.25


@dataclass(frozen=True)
class BlockConfig:
    """One MBConv block after scaling. ``squeeze_channels`` is 0 where there is no squeeze-excitation."""

    stage: int
    index: int
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    expand_ratio: int
    squeeze_channels: int
    drop_path: float

    @property
    def expanded_channels(self) -> int:
        """Channels of the depthwise convolution."""
        return self.in_channels * self.expand_ratio

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.in_channels == self.out_channels


# Tan and Le 2019 (arXiv 1905.11946), Table 1.
EFFICIENTNET_STAGES = (
    StageConfig(1, 3, 1, 1, 16),
    StageConfig(2, 3, 2, 6, 24),
    StageConfig(2, 5, 2, 6, 40),
    StageConfig(3, 3, 2, 6, 80),
    StageConfig(3, 5, 1, 6, 112),
    StageConfig(4, 5, 2, 6, 192),
    StageConfig(1, 3, 1, 6, 320),
)
LITE_STAGES = tuple(replace(stage, se_ratio=0.0) for stage in EFFICIENTNET_STAGES)


@dataclass(frozen=True)
class EfficientNetConfig:
    """A whole network: unscaled stages, the coefficients that scale them, and the training defaults.

    ``fix_stem_and_head`` keeps the stem, the head and the repeats of the first and last stage unscaled
    (EfficientNet-Lite). ``drop_path`` is the rate that the last block approaches; block i of N gets
    ``drop_path * i / N``.
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

    def __post_init__(self) -> None:
        for name in ("dropout", "drop_path"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.padding not in ("symmetric", "same"):
            raise ValueError(f"padding must be 'symmetric' or 'same', got {self.padding!r}")
        if not self.bn_eps > 0.0:
            raise ValueError(f"bn_eps must be above 0, got {self.bn_eps}")
        if not 0.0 <= self.bn_momentum <= 1.0:
            raise ValueError(
                f"bn_momentum must lie in [0, 1], got {self.bn_momentum} (PyTorch's sense: the weight "
                f"of the new batch; TensorFlow's 0.99 is 0.01 here)"
            )

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
        """Output channels of the head convolution, the features that are pooled."""
        return self._unless_fixed(self.head_channels)

    def _unless_fixed(self, channels: int) -> int:
        return channels if self.fix_stem_and_head else self._width(channels)

    def _width(self, channels: int) -> int:
        return round_filters(channels, self.coefficients.width)

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
            for index in range(self._repeats(s)):
                squeeze = max(1, int(channels * stage.se_ratio)) if stage.se_ratio else 0
                yield BlockConfig(
                    stage=s,
                    index=index,
                    in_channels=channels,
                    out_channels=self._width(stage.out_channels),
                    kernel_size=stage.kernel_size,
                    stride=stage.stride if index == 0 else 1,
                    expand_ratio=stage.expand_ratio,
                    squeeze_channels=squeeze,
                    drop_path=self.drop_path * position / total,
                )
                channels, position = self._width(stage.out_channels), position + 1


def _named(name: str, coefficients: Coefficients) -> EfficientNetConfig:
    config = EfficientNetConfig(name, coefficients, dropout=coefficients.dropout)
    if "_lite" not in name:
        return config
    return replace(config, stages=LITE_STAGES, activation="relu6", fix_stem_and_head=True)


CONFIGS = {name: _named(name, coefficients) for name, coefficients in NAMED.items()}
"""Every named model of the paper and of EfficientNet-Lite."""
