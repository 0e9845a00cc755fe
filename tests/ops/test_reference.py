"""The reference compared with ``torch.nn`` in float64, and its float32 results by the tolerance rule."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from effkernels import ops, reference
from specs.style import Style
from specs.tolerance import assert_within_eager

ACTIVATIONS = {
    "silu": nn.SiLU(),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "hardswish": nn.Hardswish(),
    "identity": nn.Identity(),
}


EXACT = Style(dtype=torch.float64, gate_bias=True)


def modules(conv: nn.Conv2d, bn: ops.BatchNorm, dtype: torch.dtype) -> nn.Sequential:
    norm = nn.BatchNorm2d(conv.out_channels, eps=bn.eps)
    norm.load_state_dict(
        {
            "weight": bn.weight,
            "bias": bn.bias,
            "running_mean": bn.running_mean,
            "running_var": bn.running_var,
        },
        strict=False,
    )
    return nn.Sequential(conv, norm).eval().requires_grad_(False).to(dtype)


def pad(x: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    top, bottom, left, right = padding
    return nn.functional.pad(x, (left, right, top, bottom))


@settings(max_examples=60, deadline=None)
@given(
    c=st.integers(1, 20),
    c_out=st.integers(1, 20),
    h=st.integers(1, 12),
    w=st.integers(1, 12),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 6)] * 4),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    depthwise=st.booleans(),
)
def test_convolutions_of_any_shape(
    c: int,
    c_out: int,
    h: int,
    w: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int, int, int],
    activation: str,
    depthwise: bool,
) -> None:
    if any(
        size + sum(sides) < d * (k - 1) + 1
        for size, sides, k, d in zip(
            (h, w), (padding[:2], padding[2:]), kernel, dilation, strict=True
        )
    ):
        op = ops.depthwise_conv_bn_act
        with pytest.raises(ValueError, match="does not fit"):
            op(
                torch.ones(1, 1, h, w),
                torch.ones(1, 1, *kernel),
                padding=padding,
                dilation=dilation,
            )
        return
    c_out, groups = (c, c) if depthwise else (c_out, 1)
    x = torch.randn(2, c, h, w)
    conv = nn.Conv2d(c, c_out, kernel, stride, dilation=dilation, groups=groups, bias=False)
    bn = Style().batch_norm(c_out)
    run = ops.depthwise_conv_bn_act if depthwise else ops.conv_bn_act
    window = {"stride": stride, "padding": padding, "dilation": dilation}
    weight = conv.weight.detach().clone()
    ours = run(x, weight, bn=bn, activation=activation, **window)
    results = [
        ACTIVATIONS[activation](modules(conv, bn, dtype)(pad(x.to(dtype), padding)))
        for dtype in (torch.float32, torch.float64)
    ]
    terms = kernel[0] * kernel[1] * (1 if depthwise else c)
    scale = (bn.weight / (bn.running_var + bn.eps).sqrt()).abs().max().item()
    largest = x.abs().max().item() * weight.abs().max().item() * terms * scale
    assert_within_eager(ours, *results, magnitude=largest, depth=terms)


@pytest.mark.parametrize("uint8", [True, False])
def test_images_are_normalised_before_they_are_padded(uint8: bool) -> None:
    x = torch.randint(256, (2, 3, 9, 7), dtype=torch.uint8)
    weight, bn = torch.randn(4, 3, 3, 3, dtype=torch.float64), EXACT.batch_norm(4)
    mean, std = torch.rand(2, 3, dtype=torch.float64) * 100 + 50
    normalised = (x.double() - mean[:, None, None]) / std[:, None, None]
    window = {"stride": 2, "dilation": (1, 2)}
    y = ops.conv_bn_act(
        x if uint8 else x.double(),
        weight,
        bn=bn,
        padding=(2, 1, 0, 3),
        mean=mean,
        std=std,
        **window,
    )
    expected = ops.conv_bn_act(pad(normalised, (2, 1, 0, 3)), weight, bn=bn, **window)
    torch.testing.assert_close(y, expected)


def test_mean_without_std_is_refused() -> None:
    for mean, std in ((torch.ones(3), None), (None, torch.ones(3))):
        with pytest.raises(ValueError, match="both mean and std"):
            reference.normalise(torch.ones(1, 3, 2, 2), mean, std, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_uint8_pixels_are_numbers_up_to_255(dtype: torch.dtype) -> None:
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    y = ops.conv_bn_act(x, torch.ones(1, 1, 1, 1, dtype=dtype), activation="identity")
    assert y.dtype == dtype
    assert torch.equal(y.double(), x.double())


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_activations_on_both_signs(activation: str) -> None:
    x = torch.linspace(-30, 30, 4001, dtype=torch.float64).view(1, 1, 1, -1)
    y = ops.depthwise_conv_bn_act(x, torch.ones(1, 1, 1, 1).double(), activation=activation)
    torch.testing.assert_close(y, ACTIVATIONS[activation](x), rtol=0, atol=0)


def test_pool_is_the_mean_of_the_result() -> None:
    x, weight = torch.randn(3, 6, 9, 8), torch.randn(6, 1, 3, 3)
    bn = Style().batch_norm(6)
    y, pooled = ops.depthwise_conv_bn_act_pool(x, weight, bn=bn, padding=1)
    torch.testing.assert_close(y, ops.depthwise_conv_bn_act(x, weight, bn=bn, padding=1))
    torch.testing.assert_close(pooled, y.mean((2, 3)))


def test_squeeze_is_the_result_and_its_mean() -> None:
    x, weight = torch.randn(3, 6, 9, 8), torch.randn(7, 6)
    bn = Style().batch_norm(7)
    y, squeezed = ops.pointwise_conv_bn_act_squeeze(x, weight, bn=bn, activation="relu")
    expected = ops.pointwise_conv_bn_act(x, weight, bn=bn, activation="relu")
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(squeezed, expected.mean((2, 3)))


def test_expand_depthwise_is_one_after_the_other() -> None:
    x = torch.randn(2, 5, 7, 6, dtype=torch.float64)
    first = torch.randn(8, 5, dtype=torch.float64), torch.randn(8).double(), EXACT.batch_norm(8)
    depthwise = torch.randn(8, 1, 3, 3, dtype=torch.float64), None, EXACT.batch_norm(8)
    window = {"stride": 2, "padding": (0, 1, 2, 1), "activation": "hardswish"}
    wide = ops.pointwise_conv_bn_act(x, *first, activation="hardswish")
    # The depthwise convolution is padded with zeros, not with what the activation makes of the norm's shift.
    expected = ops.depthwise_conv_bn_act_pool(wide, *depthwise, **window)
    convs = ops.Conv(*first), ops.Conv(*depthwise)
    y, pooled = ops.expand_depthwise_conv_bn_act_pool(x, *convs, **window)
    for ours, theirs in (
        (y, expected[0]),
        (pooled, expected[1]),
        (ops.expand_depthwise_conv_bn_act(x, *convs, **window), expected[0]),
    ):
        torch.testing.assert_close(ours, theirs)


def test_squeeze_excite_is_gate_times_input() -> None:
    x, weights = torch.randn(2, 8, 5, 4, dtype=torch.float64), EXACT.gate(8, 3)
    reduce, expand = nn.Conv2d(8, 3, 1).double(), nn.Conv2d(3, 8, 1).double()
    reduce.load_state_dict({"weight": weights[0][..., None, None], "bias": weights[1]})
    expand.load_state_dict({"weight": weights[2][..., None, None], "bias": weights[3]})
    gate = torch.sigmoid(expand(nn.SiLU()(reduce(x.mean((2, 3), keepdim=True)))))
    torch.testing.assert_close(ops.squeeze_excite(x, *weights), x * gate)
    pooled = x.mean((2, 3))
    torch.testing.assert_close(ops.squeeze_excite_gate(pooled, *weights), gate[:, :, 0, 0])
    # Weights with 4 dimensions, as convolutions have them.
    direct = (reduce.weight, reduce.bias, expand.weight, expand.bias)
    torch.testing.assert_close(ops.squeeze_excite_gate(pooled, *direct), gate[:, :, 0, 0])


def test_pointwise_order_is_gate_convolution_norm_activation_residual() -> None:
    x, weight = torch.randn(2, 5, 3, 4, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    bn, gate = EXACT.batch_norm(6), torch.rand(2, 5, dtype=torch.float64)
    bias, residual = torch.randn(6).double(), torch.randn(2, 6, 3, 4, dtype=torch.float64)
    y = ops.pointwise_conv_bn_act(
        x, weight, bias, bn, gate=gate, residual=residual, activation="relu"
    )
    z = torch.einsum("nchw,oc->nohw", x * gate[..., None, None], weight) + bias[:, None, None]
    shape = (1, -1, 1, 1)
    z = (z - bn.running_mean.view(shape)) / (bn.running_var.view(shape) + bn.eps).sqrt()
    z = (z * bn.weight.view(shape) + bn.bias.view(shape)).relu() + residual
    torch.testing.assert_close(y, z)


@pytest.mark.parametrize("size", range(1, 30))
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 3)])
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    # The definition: ceil(size / stride) outputs, and the smallest padding for that, with an odd pixel at the
    # end.
    before, after = reference.same_padding(size, kernel, stride)
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
    assert after - before in (0, 1)
    smaller = size + before + after - 1
    assert before + after == 0 or (smaller - kernel) // stride + 1 < -(-size // stride)


def test_infinity_affects_only_its_windows() -> None:
    # The slice of a larger convolution must not depend on values outside the window, not even multiplied by
    # zero.
    x = torch.zeros(1, 1, 6, 6)
    x[0, 0, 5, 5] = torch.inf
    weight = torch.ones(1, 1, 3, 3)
    y = ops.depthwise_conv_bn_act(x, weight, stride=2, padding=(0, 1, 0, 1), activation="identity")
    assert torch.isinf(y[0, 0, 2, 2])
    assert y.isfinite().sum() == 8
