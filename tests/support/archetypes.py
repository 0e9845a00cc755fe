"""Small configurations of the types of blocks that no named model has."""

from __future__ import annotations

from effkernels.models import EfficientNetConfig, StageConfig
from effkernels.models.scaling import Coefficients


def _fused(repeats: int, stride: int, expand: int, out: int, se_ratio: float = 0.0) -> StageConfig:
    return StageConfig(repeats, 3, stride, expand, out, se_ratio, "fused_mbconv")


def _bottleneck(repeats: int, stride: int, out: int, se_ratio: float = 0.0) -> StageConfig:
    return StageConfig(repeats, 3, stride, 4, out, se_ratio, "bottleneck")


_COMMON = {"stem_channels": 16, "head_channels": 48, "channel_divisor": 4}
_SIZE = Coefficients(1.0, 1.0, 32, 0.0)

FUSED = EfficientNetConfig(
    "fused",
    _SIZE,
    # As EfficientNetV2: without expansion, with, and MBConv behind it; and squeeze-excitation of either kind.
    (
        _fused(2, 1, 1, 16),
        _fused(2, 2, 4, 24),
        _fused(1, 1, 1, 24, se_ratio=0.25),
        _fused(2, 1, 2, 24, se_ratio=0.25),
        StageConfig(2, 3, 2, 2, 32),
    ),
    **_COMMON,
)
BOTTLENECK = EfficientNetConfig(
    "bottleneck",
    _SIZE,
    # As ResNet-50: a wider first block, one of stride 2; and, in the last stage, SE-ResNet.
    (_bottleneck(2, 1, 64), _bottleneck(2, 2, 128), _bottleneck(2, 2, 128, se_ratio=1 / 16)),
    activation="relu",
    **_COMMON,
)
HEADLESS = EfficientNetConfig(
    "headless",
    _SIZE,
    # The blocks of MobileNetV1, then those of ResNets, and the stem of these.
    (StageConfig(1, 3, 2, 1, 24, 0.0, "separable_conv"), _bottleneck(1, 1, 64)),
    stem_kernel_size=7,
    stem_pool=True,
    **{**_COMMON, "head_channels": 0},
)
ARCHETYPES = {config.name: config for config in (FUSED, BOTTLENECK, HEADLESS)}
