"""EfficientNet written again in plain PyTorch, as simply as possible: the reference for surgery on our modules.

It shares nothing with ``effkernels.nn`` except the names of modules and attributes, so that the same surgery can
be done to both, and one can load the other's state dict.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effkernels.models import EfficientNetConfig

ACTIVATIONS = {"silu": nn.SiLU, "relu6": nn.ReLU6, "relu": nn.ReLU, "hardswish": nn.Hardswish}


class SameConv2d(nn.Conv2d):
    """TensorFlow's 'SAME' padding as a padded copy."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        strides, dilations = (
            (value, value) if isinstance(value, int) else value
            for value in (self.stride, self.dilation)
        )
        for axis in (1, 0):  # F.pad begins with the last dimension
            size, kernel = x.shape[2 + axis], (self.weight.shape[2 + axis] - 1) * dilations[axis]
            total = max((-(-size // strides[axis]) - 1) * strides[axis] + kernel + 1 - size, 0)
            pads += [total // 2, total - total // 2]
        x = F.pad(x, pads)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Layer(nn.Module):
    """Convolution, BatchNorm, activation."""

    def __init__(
        self,
        config: EfficientNetConfig,
        channels: tuple[int, int],
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        same = config.padding == "same" and kernel > 1
        conv, padding = (SameConv2d, 0) if same else (nn.Conv2d, kernel // 2)
        self.conv = conv(*channels, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels[1], config.bn_eps, config.bn_momentum)
        self.act = nn.Identity() if linear else ACTIVATIONS[config.activation]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Squeeze(nn.Module):
    """Squeeze-excitation."""

    def __init__(self, config: EfficientNetConfig, channels: int, inner: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.act = ACTIVATIONS[config.activation]()
        self.expand = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(self.act(self.reduce(pooled))))


class Drop(nn.Module):
    """Stochastic depth."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        kept = torch.empty(len(x), 1, 1, 1, dtype=x.dtype).bernoulli_(1.0 - self.rate)
        return x * (kept / (1.0 - self.rate) if self.rate < 1.0 else kept)


class Block(nn.Module):
    """MBConv."""

    def __init__(
        self,
        config: EfficientNetConfig,
        channels: tuple[int, int],
        kernel: int,
        stride: int,
        expand_ratio: int,
        squeeze_channels: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        wide = channels[0] * expand_ratio
        self.residual = stride == 1 and channels[0] == channels[1]
        self.expand = Layer(config, (channels[0], wide)) if expand_ratio != 1 else None
        self.depthwise = Layer(config, (wide, wide), kernel, stride=stride, groups=wide)
        self.squeeze_excite = Squeeze(config, wide, squeeze_channels) if squeeze_channels else None
        self.project = Layer(config, (wide, channels[1]), linear=True)
        self.drop_path = Drop(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        y = y if self.squeeze_excite is None else self.squeeze_excite(y)
        y = self.project(y)
        return self.drop_path(y) + x if self.residual else y


class Network(nn.Module):
    """The classifier."""

    def __init__(self, config: EfficientNetConfig, num_classes: int) -> None:
        super().__init__()
        self.stem = Layer(config, (3, config.scaled_stem_channels), 3, stride=2)
        stages: dict[int, list[nn.Module]] = {}
        for row in config.blocks():
            channels = row.in_channels, row.out_channels
            block = Block(
                config,
                channels,
                row.kernel_size,
                row.stride,
                row.expand_ratio,
                row.squeeze_channels,
                row.drop_path,
            )
            stages.setdefault(row.stage, []).append(block)
        self.stages = nn.Sequential(*(nn.Sequential(*blocks) for blocks in stages.values()))
        self.head = Layer(config, (channels[1], config.scaled_head_channels))
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.scaled_head_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.stages(self.stem(x)))
        return self.classifier(self.dropout(x.mean((2, 3))))
