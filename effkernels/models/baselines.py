"""Other networks that are of the same kind as EfficientNets, for scaling: configurations without named weights."""

from __future__ import annotations

from effkernels.models.config import EfficientNetConfig, StageConfig
from effkernels.models.scaling import Coefficients

MOBILENET_V2 = EfficientNetConfig(
    "mobilenet_v2",
    Coefficients(width=1.0, depth=1.0, resolution=224, dropout=0.2),
    tuple(
        StageConfig(repeats, 3, stride, expand, channels, 0.0)
        for repeats, stride, expand, channels in (
            (1, 1, 1, 16),
            (2, 2, 6, 24),
            (3, 2, 6, 32),
            (4, 2, 6, 64),
            (3, 1, 6, 96),
            (3, 2, 6, 160),
            (1, 1, 6, 320),
        )
    ),
    activation="relu6",
    drop_path=0.0,
    bn_eps=1e-5,
    bn_momentum=0.1,
)
"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), Table 2, with BatchNorm as in torchvision, whose state dicts it
loads. Its own scaling leaves the head at 1280 channels below width 1; here the head is scaled as all widths are.
"""
