"""Fused MBConv and bottleneck blocks compute what torchvision's and timm's do."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from effkernels.nn import Bottleneck, ConvBnAct, FusedMBConv
from oracles import oracle
from specs.oracle_convolutions import OracleConvolutions
from specs.tolerance import assert_within_eager

Layers = list[tuple[nn.Module, nn.Module]]
Pair = tuple[nn.Module, nn.Module, Layers]
EPS = {"bn_eps": 1e-5, "bn_momentum": 0.1}


def _conv_bn(layer: ConvBnAct, conv: nn.Module, bn: nn.Module) -> Layers:
    return [(layer.conv, conv), (layer.bn, bn)]


def torchvision_fused(channels: tuple[int, int], stride: int, expand: int) -> Pair:
    efficientnet = oracle("torchvision.models.efficientnet")
    row = efficientnet.FusedMBConvConfig(expand, 3, stride, *channels, 1)
    theirs = efficientnet.FusedMBConv(row, 0.0, nn.BatchNorm2d)
    ours = FusedMBConv(*channels, 3, stride=stride, expand_ratio=expand, **EPS)
    layers = [layer for layer in (ours.expand, ours.project) if layer is not None]
    assert len(layers) == len(theirs.block)
    pairs = zip(layers, theirs.block, strict=True)
    return ours, theirs, [pair for layer, seq in pairs for pair in _conv_bn(layer, seq[0], seq[1])]


def timm_fused(
    channels: tuple[int, int], stride: int, expand: int, padding: str, squeezed: int
) -> Pair:
    blocks = oracle("timm.models._efficientnet_blocks")
    options = {"stride": stride, "act_layer": nn.SiLU, "pad_type": padding.replace("symmetric", "")}
    if expand == 1:
        theirs = blocks.ConvBnAct(*channels, 3, skip=True, **options)
        convs = [(theirs.conv, theirs.bn1)]
    else:

        def squeeze(wide: int, **own: object) -> nn.Module:
            return blocks.SqueezeExcite(wide, rd_channels=squeezed, **own)

        options["se_layer"] = squeeze if squeezed else None
        theirs = blocks.EdgeResidual(*channels, 3, exp_ratio=expand, **options)
        convs = [(theirs.conv_exp, theirs.bn1), (theirs.conv_pwl, theirs.bn2)]
    ours = FusedMBConv(
        *channels,
        3,
        stride=stride,
        expand_ratio=expand,
        padding=padding,
        squeeze_channels=squeezed,
        **EPS,
    )
    layers = [layer for layer in (ours.expand, ours.project) if layer is not None]
    together = zip(layers, convs, strict=True)
    pairs = [pair for layer, parts in together for pair in _conv_bn(layer, *parts)]
    if squeezed:
        assert ours.squeeze_excite is not None
        pairs += [
            (ours.squeeze_excite.reduce, theirs.se.conv_reduce),
            (ours.squeeze_excite.expand, theirs.se.conv_expand),
        ]
    return ours, theirs, pairs


def torchvision_bottleneck(channels: tuple[int, int], stride: int) -> Pair:
    resnet = oracle("torchvision.models.resnet")
    inner = channels[1] // 4
    ours = Bottleneck(*channels, inner_channels=inner, stride=stride, **EPS)
    downsample = None
    if ours.shortcut is not None:
        conv = nn.Conv2d(*channels, 1, stride, bias=False)
        downsample = nn.Sequential(conv, nn.BatchNorm2d(channels[1]))
    theirs = resnet.Bottleneck(channels[0], inner, stride, downsample)
    pairs = [
        *_conv_bn(ours.reduce, theirs.conv1, theirs.bn1),
        *_conv_bn(ours.conv, theirs.conv2, theirs.bn2),
        *_conv_bn(ours.restore, theirs.conv3, theirs.bn3),
    ]
    if downsample is not None:
        pairs += _conv_bn(ours.shortcut, *downsample)
    return ours, theirs, pairs


def timm_bottleneck(channels: tuple[int, int], stride: int) -> Pair:
    """SE-ResNet's."""
    oracle("timm")
    from timm.layers import SEModule
    from timm.models.resnet import Bottleneck as TheirBottleneck
    from timm.models.resnet import downsample_conv

    inner, squeezed = channels[1] // 4, channels[1] // 16
    ours = Bottleneck(
        *channels, inner_channels=inner, stride=stride, squeeze_channels=squeezed, **EPS
    )
    downsample = None
    if ours.shortcut is not None:
        downsample = downsample_conv(*channels, 1, stride)
    theirs = TheirBottleneck(
        channels[0],
        inner,
        stride,
        downsample,
        attn_layer=lambda c, **own: SEModule(c, rd_channels=squeezed, **own),
    )
    assert ours.squeeze_excite is not None
    pairs = [
        *_conv_bn(ours.reduce, theirs.conv1, theirs.bn1),
        *_conv_bn(ours.conv, theirs.conv2, theirs.bn2),
        *_conv_bn(ours.restore, theirs.conv3, theirs.bn3),
        (ours.squeeze_excite.reduce, theirs.se.fc1),
        (ours.squeeze_excite.expand, theirs.se.fc2),
    ]
    if downsample is not None:
        pairs += _conv_bn(ours.shortcut, *downsample)
    return ours, theirs, pairs


SHAPES = [((16, 16), 1), ((16, 24), 1), ((24, 24), 2)]  # with a residual, without, and strided
PAIRS: dict[str, Callable[[], Pair]] = {
    f"{name}, {channels[0]} to {channels[1]}, stride {stride}": lambda m=make, c=channels, s=stride: (
        m(c, s)
    )
    for name, make in {
        "torchvision's fused": lambda c, s: torchvision_fused(c, s, 4),
        "torchvision's fused, without expansion": lambda c, s: torchvision_fused(c, s, 1),
        "timm's fused": lambda c, s: timm_fused(c, s, 3, "symmetric", 0),
        "timm's fused, same padding, gated": lambda c, s: timm_fused(c, s, 3, "same", 5),
        "timm's fused, same padding, without expansion": lambda c, s: timm_fused(
            c, s, 1, "same", 0
        ),
    }.items()
    for channels, stride in SHAPES
}
PAIRS |= {
    f"{name}, {channels[0]} to {channels[1]}, stride {stride}": lambda m=make, c=channels, s=stride: (
        m(c, s)
    )
    for name, make in {
        "torchvision's bottleneck": torchvision_bottleneck,
        "timm's bottleneck, gated": timm_bottleneck,
    }.items()
    for channels, stride in [((64, 64), 1), ((32, 64), 1), ((64, 64), 2)]
}


@torch.no_grad()
def scrambled(norms: list[nn.Module]) -> None:
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-0.3, 0.3)
        norm.running_mean.normal_(0.0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)


def paired(name: str) -> tuple[nn.Module, nn.Module, Layers]:
    """Ours and theirs of the same numbers, every parameter and buffer of either."""
    ours, theirs, layers = PAIRS[name]()
    scrambled([m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)])
    for mine, other in layers:
        mine.load_state_dict(other.state_dict())
    assert len(ours.state_dict()) == len(theirs.state_dict())
    assert len({id(m) for m, _ in layers}) == len(layers)
    return ours, theirs, layers


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@torch.no_grad()
def test_a_block_computes_what_theirs_does(name: str, training: bool, backend: str) -> None:
    ours, theirs, layers = paired(name)
    ours.train(training)
    theirs.train(training)
    exact = copy.deepcopy(theirs).double()
    x = torch.randn(3, ours_channels(ours), 9, 12)
    # Theirs may add in place.
    with OracleConvolutions():
        want = exact(x.double().clone())
    nhwc = x.to(memory_format=torch.channels_last)
    # What the longest sums may add: their terms' absolute values sum to at least the result.
    depth = max(m.weight[0].numel() for m in ours.modules() if isinstance(m, nn.Conv2d))
    magnitude = want.abs().max().item()
    y = ours(x)
    assert_within_eager(y, theirs(nhwc.clone()), want, magnitude=magnitude, depth=depth)
    for mine, other in layers:  # running statistics
        for key, value in mine.state_dict().items():
            torch.testing.assert_close(value, other.state_dict()[key], rtol=1e-4, atol=1e-5)


def ours_channels(block: nn.Module) -> int:
    return next(m for m in block.modules() if isinstance(m, nn.Conv2d)).in_channels


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_gradients_are_those_of_theirs(name: str, training: bool) -> None:
    ours, theirs, layers = paired(name)
    x = torch.randn(3, ours_channels(ours), 7, 6, dtype=torch.float64)
    weight = None
    found = []
    for block in (ours, theirs):
        block.double().train(training)
        images = x.clone().requires_grad_()
        y = block(images * 1.0)
        weight = torch.randn_like(y) if weight is None else weight
        (y * weight).sum().backward()
        found.append(images.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-9)
    for mine, other in layers:
        for key, parameter in mine.named_parameters():
            want = other.get_parameter(key).grad
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, want, rtol=1e-8, atol=1e-8, msg=key)
