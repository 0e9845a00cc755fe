"""Networks of all kinds of blocks that run in a moment."""

from __future__ import annotations

from dataclasses import replace

from effkernels.models import CONFIGS, EfficientNet, build
from effkernels.scaling.formula import Coefficients
from randomise import randomise


def small(name: str = "efficientnet_b0", **options: object) -> EfficientNet:
    """The network with a quarter of the channels: PyTorch's float64 depthwise convolution goes channel by channel."""
    config = replace(CONFIGS[name], coefficients=Coefficients(0.25, 1.0, 64, 0.2), stem_channels=32)
    return randomise(build(config, **{"num_classes": 10, **options}))
