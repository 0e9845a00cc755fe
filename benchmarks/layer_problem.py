"""Layers and blocks as separate PyTorch calls: what eager contestants run, and in float64 the exact answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import effkernels
from benchmarks.layer_cases import (
    BlockCase,
    ConvCase,
    DepthwiseCase,
    LayerCases,
    PointwiseCase,
    SqueezeExciteCase,
)
from benchmarks.problem import KEPT_IMAGES, SEED, Answer, Tensors, checked

_EPS = 1e-3
# In place where PyTorch can.
_ACTIVATIONS = {"silu": nn.SiLU(True), "relu6": nn.ReLU6(True), "identity": nn.Identity()}


def eager(case: LayerCases, inputs: Tensors) -> Tensor:
    """The layer, one PyTorch call after the other."""
    result: Tensor = _EAGER[type(case)](case, inputs)
    return result


def make(case: LayerCases) -> tuple[Tensors, dict[str, Answer]]:
    """Random inputs, and what comes of the checked images: "result"; of 1x1 convolutions the bare "product" too."""
    torch.manual_seed(SEED)
    inputs = _INPUTS[type(case)](case)
    some = checked(inputs, case)
    exact = {name: tensor.double() for name, tensor in some.items()}
    sums = _largest_sum(case, exact)
    answers = {"result": Answer(eager(case, exact), eager(case, some), sums, case.depth)}
    if isinstance(case, PointwiseCase):
        answers["product"] = _product(some, case)
    return inputs, answers


def ours_norm(inputs: Tensors, part: str = "") -> effkernels.ops.BatchNorm:
    """A convolution's BatchNorm as an argument of effkernels' ops."""
    names = ("bn_weight", "bn_bias", "running_mean", "running_var")
    weight, bias, mean, variance = (inputs[part + name] for name in names)
    return effkernels.ops.BatchNorm(weight, bias, mean, variance, _EPS)


def _normed(x: Tensor, inputs: Tensors, activation: str, part: str = "") -> Tensor:
    weight, bias, mean, variance, eps = ours_norm(inputs, part)
    x = F.batch_norm(x, mean, variance, weight, bias, eps=eps)
    result: Tensor = _ACTIVATIONS[activation](x)
    return result


def _window(case: DepthwiseCase | BlockCase, x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, None, case.stride, case.kernel_size // 2, groups=x.shape[1])


def _depthwise(case: DepthwiseCase, t: Tensors) -> Tensor:
    return _normed(_window(case, t["x"], t["weight"]), t, case.activation)


def _conv(case: ConvCase, t: Tensors) -> Tensor:
    y = F.conv2d(t["x"], t["weight"], None, case.stride, case.kernel_size // 2)
    return _normed(y, t, case.activation)


def _pointwise(case: PointwiseCase, t: Tensors) -> Tensor:
    x = t["x"] * t["gate"][:, :, None, None] if case.gated else t["x"]
    y = _normed(F.conv2d(x, t["weight"]), t, case.activation)
    return y.add_(t["residual"]) if case.residual else y


def _squeeze_excite(case: SqueezeExciteCase | BlockCase, t: Tensors, x: Tensor) -> Tensor:
    hidden = F.conv2d(x.mean((2, 3), keepdim=True), t["reduce_weight"], t["reduce_bias"])
    hidden = _ACTIVATIONS[case.activation](hidden)
    gate: Tensor = F.conv2d(hidden, t["gate_weight"], t["gate_bias"]).sigmoid()
    return x * gate


def _widened(case: BlockCase, t: Tensors) -> Tensor:
    """All of the block before the last convolution."""
    x = t["x"]
    if case.expands:
        x = _normed(F.conv2d(x, t["expand_weight"]), t, case.activation, "expand_")
    x = _normed(_window(case, x, t["depthwise_weight"]), t, case.activation, "depthwise_")
    return _squeeze_excite(case, t, x) if case.hidden else x


def _block(case: BlockCase, t: Tensors) -> Tensor:
    y = _normed(F.conv2d(_widened(case, t), t["weight"]), t, "identity")
    return y.add_(t["x"]) if case.residual else y


_EAGER: dict[type, Callable[[Any, Tensors], Tensor]] = {
    DepthwiseCase: _depthwise,
    PointwiseCase: _pointwise,
    ConvCase: _conv,
    SqueezeExciteCase: lambda case, t: _squeeze_excite(case, t, t["x"]),
    BlockCase: _block,
}


def _largest_sum(case: LayerCases, t: Tensors) -> float:
    """The largest sum of the absolute terms of one output, with BatchNorm's factor."""
    if isinstance(case, SqueezeExciteCase):
        return t["x"].abs().max().item()
    x = (_widened(case, t) if isinstance(case, BlockCase) else t["x"]).abs()
    weight = t["weight"].abs()
    if isinstance(case, DepthwiseCase):
        sums = _window(case, x, weight)
    elif isinstance(case, ConvCase):
        sums = F.conv2d(x, weight, None, case.stride, case.kernel_size // 2)
    else:
        sums = F.conv2d(x, weight)
    scale = t["bn_weight"] * (t["running_var"] + _EPS).rsqrt()
    return (sums * scale[:, None, None]).max().item()


def _product(t: Tensors, case: PointwiseCase) -> Answer:
    x, weight = t["x"], t["weight"]
    exact = F.conv2d(x.double(), weight.double())
    magnitude = F.conv2d(x.double().abs(), weight.double().abs()).max().item()
    return Answer(exact, F.conv2d(x, weight), magnitude, case.depth)


def _map(case: LayerCases, channels: int) -> Tensor:
    return torch.randn(min(case.batch, KEPT_IMAGES), channels, case.height, case.width)


def _kernel(c_out: int, c_in: int, side: int = 1) -> Tensor:
    return torch.randn(c_out, c_in, side, side) / (c_in * side**2) ** 0.5


def _norm(channels: int, part: str = "") -> Tensors:
    """BatchNorm vectors away from their defaults."""
    return {
        f"{part}bn_weight": torch.empty(channels).uniform_(0.5, 1.5),
        f"{part}bn_bias": torch.empty(channels).uniform_(-0.3, 0.3),
        f"{part}running_mean": torch.randn(channels) * 0.1,
        f"{part}running_var": torch.empty(channels).uniform_(0.5, 2.0),
    }


def _window_inputs(case: DepthwiseCase) -> Tensors:
    weight = _kernel(case.channels, 1, case.kernel_size)
    return {"x": _map(case, case.channels), "weight": weight, **_norm(case.channels)}


def _conv_inputs(case: ConvCase) -> Tensors:
    weight = _kernel(case.out_channels, case.in_channels, case.kernel_size)
    return {"x": _map(case, case.in_channels), "weight": weight, **_norm(case.out_channels)}


def _pointwise_inputs(case: PointwiseCase) -> Tensors:
    x, weight = _map(case, case.in_channels), _kernel(case.out_channels, case.in_channels)
    inputs = {"x": x, "weight": weight, **_norm(case.out_channels)}
    if case.gated:
        inputs["gate"] = torch.rand(len(x), case.in_channels)
    if case.residual:
        inputs["residual"] = _map(case, case.out_channels)
    return inputs


def _squeeze_inputs(case: SqueezeExciteCase | BlockCase, channels: int) -> Tensors:
    return {
        "reduce_weight": _kernel(case.hidden, channels),
        "reduce_bias": torch.randn(case.hidden) * 0.1,
        "gate_weight": _kernel(channels, case.hidden),
        "gate_bias": torch.randn(channels) * 0.1,
    }


def _block_inputs(case: BlockCase) -> Tensors:
    wide = case.expanded
    inputs = {"x": _map(case, case.in_channels)}
    if case.expands:
        inputs["expand_weight"] = _kernel(wide, case.in_channels)
        inputs |= _norm(wide, "expand_")
    inputs["depthwise_weight"] = _kernel(wide, 1, case.kernel_size)
    inputs |= _norm(wide, "depthwise_")
    if case.hidden:
        inputs |= _squeeze_inputs(case, wide)
    inputs["weight"] = _kernel(case.out_channels, wide)
    return inputs | _norm(case.out_channels)


_INPUTS: dict[type, Callable[[Any], Tensors]] = {
    DepthwiseCase: _window_inputs,
    PointwiseCase: _pointwise_inputs,
    ConvCase: _conv_inputs,
    SqueezeExciteCase: lambda case: {
        "x": _map(case, case.channels),
        **_squeeze_inputs(case, case.channels),
    },
    BlockCase: _block_inputs,
}
