"""Other networks that are of the same kind as EfficientNets, for scaling: configurations without named weights.

BatchNorm is as in torchvision, or in timm for MobileNetV1: their state dicts are weights for these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from effkernels.models.config import BlockType, EfficientNetConfig, StageConfig
from effkernels.models.scaling import Coefficients


def _baseline(
    name: str,
    block: BlockType,
    rows: Iterable[tuple[int, int, int, int]],
    *,
    activation: str,
    dropout: float = 0.0,
    head_channels: int = 0,
    stem_channels: int = 32,
    stem_kernel_size: int = 3,
    stem_pool: bool = False,
) -> EfficientNetConfig:
    """``rows``: repeats, stride, expansion and channels of each stage, whose kernels are 3x3."""
    return EfficientNetConfig(
        name,
        Coefficients(width=1.0, depth=1.0, resolution=224, dropout=dropout),
        tuple(
            StageConfig(repeats, 3, stride, expand, channels, 0.0, block)
            for repeats, stride, expand, channels in rows
        ),
        activation=activation,
        dropout=dropout,
        drop_path=0.0,
        bn_eps=1e-5,
        bn_momentum=0.1,
        head_channels=head_channels,
        stem_channels=stem_channels,
        stem_kernel_size=stem_kernel_size,
        stem_pool=stem_pool,
    )


MOBILENET_V1 = _baseline(
    "mobilenet_v1",
    "separable_conv",
    [(1, 1, 1, 64), (2, 2, 1, 128), (2, 2, 1, 256), (6, 2, 1, 512), (2, 2, 1, 1024)],
    activation="relu6",
)
"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861), Table 1; its layers of one resolution are one stage here. The
paper draws ReLU; its authors' code has ReLU6, as have timm's ``mobilenetv1_100`` and its weights.
"""

MOBILENET_V2 = _baseline(
    "mobilenet_v2",
    "mbconv",
    [
        (1, 1, 1, 16),
        (2, 2, 6, 24),
        (3, 2, 6, 32),
        (4, 2, 6, 64),
        (3, 1, 6, 96),
        (3, 2, 6, 160),
        (1, 1, 6, 320),
    ],
    activation="relu6",
    dropout=0.2,
    head_channels=1280,
)
"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), Table 2. Its own scaling leaves the head at 1280 channels below
width 1; here the head is scaled as all widths are.
"""

RESNET50 = _baseline(
    "resnet50",
    "bottleneck",
    [(3, 1, 4, 256), (4, 2, 4, 512), (6, 2, 4, 1024), (3, 2, 4, 2048)],
    activation="relu",
    stem_channels=64,
    stem_kernel_size=7,
    stem_pool=True,
)
"""ResNet-50 (He et al. 2016, arXiv 1512.03385), Table 1, with the stride of a block in its 3x3 convolution, as in
torchvision. Inner and outer widths of the blocks are scaled, each to a multiple of the divisor.
"""

BASELINES: Mapping[str, EfficientNetConfig] = MappingProxyType(
    {config.name: config for config in (MOBILENET_V1, MOBILENET_V2, RESNET50)}
)
"""They all, by name. ``list_models()`` does not list them; ``create_model``, ``model_cost`` and commands take their
names.
"""
