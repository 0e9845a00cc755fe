"""The layer of each type of block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from effkernels.models.config import BlockConfig, BlockType
from effkernels.nn import Bottleneck, FusedMBConv, MBConv, SeparableConv

_LAYERS: Mapping[BlockType, type[nn.Module]] = {
    "mbconv": MBConv,
    "depthwise_separable": MBConv,
    "fused_mbconv": FusedMBConv,
    "bottleneck": Bottleneck,
    "separable_conv": SeparableConv,
}


def make_block(block: BlockConfig, **options: Any) -> nn.Module:
    """The block of a row; ``options`` are those that all blocks of a network share."""
    if block.block != "separable_conv":
        options |= {"squeeze_channels": block.squeeze_channels, "drop_path": block.drop_path}
        if block.block == "bottleneck":
            options["inner_channels"] = block.inner_channels
        else:
            options["expand_ratio"] = block.expand_ratio
    return _LAYERS[block.block](
        block.in_channels,
        block.out_channels,
        block.kernel_size,
        stride=block.stride,
        **options,
    )
