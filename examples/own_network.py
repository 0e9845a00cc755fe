"""A network of your own from the fused ops: layers hold ordinary modules, and call an op in ``forward``.

    python examples/own_network.py

The ops take BatchNorm with the values of the module, so the layers train, load and save like any others. In eval
mode each convolution is one kernel if a backend has one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import effkernels
from effkernels import ops


class SeparableConv(nn.Module):
    """Depthwise 3x3 and pointwise 1x1 convolution, each with BatchNorm and ReLU (MobileNet's layer)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(c_in, c_in, 3, stride, 1, groups=c_in, bias=False)
        self.bn1 = nn.BatchNorm2d(c_in)
        self.pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        if (
            self.training
        ):  # the ops normalise with running statistics, so they are for inference only
            x = self.bn1(self.depthwise(x)).relu()
            return self.bn2(self.pointwise(x)).relu()
        x = ops.depthwise_conv_bn_act(
            x,
            self.depthwise.weight,
            bn=ops.BatchNorm.of(self.bn1),
            stride=self.depthwise.stride,
            padding=self.depthwise.padding,
            activation="relu",
        )
        return ops.pointwise_conv_bn_act(
            x, self.pointwise.weight, bn=ops.BatchNorm.of(self.bn2), activation="relu"
        )


def small_mobilenet() -> nn.Sequential:
    """Three layers that map (N, 16, H, W) to (N, 64, H / 4, W / 4)."""
    return nn.Sequential(
        SeparableConv(16, 32, 1), SeparableConv(32, 64, 2), SeparableConv(64, 64, 2)
    )


def main() -> None:
    """Check that both ways compute the same, and print what ran."""
    network = small_mobilenet().eval()
    x = torch.randn(1, 16, 32, 32)
    with torch.inference_mode():
        fused = network(x)
        with effkernels.use_backend("torch"):
            plain = network(x)
    print(f"largest difference to PyTorch's operators: {(fused - plain).abs().max():.1e}")


if __name__ == "__main__":
    main()
