"""Every wrong argument raises a clear error in the Python function, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from effkernels import ops

X = torch.randn(2, 6, 8, 8)
W = torch.randn(6, 1, 3, 3)
BN = ops.BatchNorm(torch.ones(6), torch.zeros(6), torch.zeros(6), torch.ones(6), 1e-3)
SE = (torch.randn(2, 6), torch.randn(2), torch.randn(6, 2), torch.randn(6))


def depthwise(x: Any = X, weight: Any = W, **options: Any) -> Any:
    return ops.depthwise_conv_bn_act(x, weight, **options)


def dense(x: Any = X, **options: Any) -> Any:
    return ops.conv_bn_act(x, torch.randn(4, 6, 3, 3), **options)


def block(**changes: Any) -> Any:
    parts = {
        "x": X,
        "expand": ops.Conv(torch.randn(12, 6, 1, 1)),
        "depthwise": ops.Conv(torch.randn(12, 1, 3, 3)),
        "gate": None,
        "project": ops.Conv(torch.randn(6, 12)),
        "padding": 1,
    } | changes
    return ops.mbconv(**parts)


def first_two_convolutions(**changes: Any) -> Any:
    parts = {
        "x": X,
        "expand": ops.Conv(torch.randn(12, 6, 1, 1)),
        "depthwise": ops.Conv(torch.randn(12, 1, 3, 3)),
    } | changes
    return ops.expand_depthwise_conv_bn_act_pool(**parts)


CASES: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "not a tensor": (TypeError, "x must be a tensor, got list", lambda: depthwise([1])),
    "three dimensions": (ValueError, r"x must be \(N, C, H, W\)", lambda: depthwise(X[0])),
    "integers": (
        TypeError,
        "x must be floating point, got torch.int64",
        lambda: depthwise(X.long()),
    ),
    "uint8 maps": (
        TypeError,
        "x must be floating point, got torch.uint8",
        lambda: depthwise(X.byte()),
    ),
    "integer images": (
        TypeError,
        "x must be floating point or uint8, got torch.int16",
        lambda: dense(X.short()),
    ),
    "uint8 images elsewhere": (
        ValueError,
        "weight is on cpu, x on meta",
        lambda: dense(X.byte().to("meta")),
    ),
    "mean alone": (
        ValueError,
        "std is None: .* both mean and std",
        lambda: dense(mean=torch.ones(6)),
    ),
    "std alone": (ValueError, "mean is None", lambda: dense(X.byte(), std=torch.ones(6))),
    "mean length": (
        ValueError,
        r"mean must have shape \(6,\), got \(3,\)",
        lambda: dense(mean=torch.ones(3), std=torch.ones(6)),
    ),
    "std shape": (
        ValueError,
        r"std must have shape \(6,\), got \(6, 1, 1\)",
        lambda: dense(mean=torch.ones(6), std=torch.ones(6, 1, 1)),
    ),
    "std of integers": (
        TypeError,
        "std must be floating",
        lambda: dense(X.byte(), mean=torch.ones(6), std=torch.ones(6).int()),
    ),
    "mean elsewhere": (
        ValueError,
        "mean is on meta",
        lambda: dense(mean=torch.ones(6, device="meta"), std=torch.ones(6)),
    ),
    "mean of numbers": (
        TypeError,
        "mean must be a tensor, got tuple",
        lambda: dense(mean=(1.0,) * 6, std=torch.ones(6)),
    ),
    "no rows": (ValueError, "at least one", lambda: depthwise(X[:, :, :0])),
    "no channels": (ValueError, "at least one", lambda: depthwise(X[:, :0])),
    "not depthwise": (ValueError, "weight must have shape", lambda: depthwise(weight=W[:4])),
    "dense weight": (
        ValueError,
        "weight must have shape",
        lambda: depthwise(weight=torch.randn(6, 6, 3, 3)),
    ),
    "flat weight": (ValueError, "4 dimensions", lambda: depthwise(weight=W.flatten())),
    "dtypes differ": (TypeError, "weight is torch.float64", lambda: depthwise(weight=W.double())),
    "devices differ": (ValueError, "weight is on meta", lambda: depthwise(weight=W.to("meta"))),
    "bias length": (ValueError, "bias must have shape", lambda: depthwise(bias=torch.ones(5))),
    "bn length": (
        ValueError,
        "bn.running_var must have shape",
        lambda: depthwise(bn=BN._replace(running_var=torch.ones(1))),
    ),
    "bn without statistics": (
        ValueError,
        "bn.running_mean is None",
        lambda: depthwise(bn=BN._replace(running_mean=None)),
    ),
    "bn eps": (ValueError, "bn.eps must be above 0", lambda: depthwise(bn=BN._replace(eps=0.0))),
    "bn of integers": (
        TypeError,
        "bn.weight must be floating",
        lambda: depthwise(bn=BN._replace(weight=torch.ones(6).long())),
    ),
    "stride": (ValueError, "stride must be a positive", lambda: depthwise(stride=0)),
    "three strides": (ValueError, "stride must be", lambda: depthwise(stride=(1, 1, 1))),
    "dilation": (ValueError, "dilation must be", lambda: depthwise(dilation=(1, -1))),
    "negative padding": (ValueError, "none negative", lambda: depthwise(padding=-1)),
    "three paddings": (ValueError, "padding must be", lambda: depthwise(padding=(1, 1, 1))),
    "empty output": (
        ValueError,
        "3x3 kernel .* does not fit into 2x2",
        lambda: depthwise(X[:, :, :2, :2]),
    ),
    "activation": (
        ValueError,
        "silu, relu, relu6, hardswish, identity, got 'swish'",
        lambda: depthwise(activation="swish"),
    ),
    "pointwise kernel": (
        ValueError,
        r"\(C_out, C_in\)",
        lambda: ops.pointwise_conv_bn_act(X, torch.randn(4, 6, 3, 3)),
    ),
    "gate shape": (
        ValueError,
        "gate must have shape",
        lambda: ops.pointwise_conv_bn_act(X, torch.randn(4, 6), gate=torch.ones(1, 6)),
    ),
    "residual shape": (
        ValueError,
        "residual must have shape",
        lambda: ops.pointwise_conv_bn_act(X, torch.randn(4, 6), residual=X),
    ),
    "pooled shape": (ValueError, "pooled must be", lambda: ops.squeeze_excite_gate(X, *SE)),
    "gate weights": (
        ValueError,
        "expand_weight must have shape",
        lambda: ops.squeeze_excite(X, *SE[:2], SE[2][:, :1], SE[3]),
    ),
    "gate bias": (
        ValueError,
        "reduce_bias must have shape",
        lambda: ops.squeeze_excite(X, SE[0], SE[3], *SE[2:]),
    ),
    "expand channels": (
        ValueError,
        r"expand.weight must have shape \(12, 6\)",
        lambda: first_two_convolutions(expand=ops.Conv(torch.randn(12, 5))),
    ),
    "expand kernel": (
        ValueError,
        r"expand.weight must be \(C_out, C_in\)",
        lambda: first_two_convolutions(expand=ops.Conv(torch.randn(12, 6, 3, 3))),
    ),
    "expanded width": (
        ValueError,
        "depthwise.weight must have shape",
        lambda: first_two_convolutions(depthwise=ops.Conv(torch.randn(6, 1, 3, 3))),
    ),
    "expanded norm": (
        ValueError,
        "bn.weight must have shape",
        lambda: first_two_convolutions(depthwise=ops.Conv(torch.randn(12, 1, 3, 3), None, BN)),
    ),
    "expanded dtype": (
        TypeError,
        "depthwise.weight is torch.float64",
        lambda: first_two_convolutions(depthwise=ops.Conv(torch.randn(12, 1, 3, 3).double())),
    ),
    "expanded size": (
        ValueError,
        "11x11 kernel .* does not fit into 8x8",
        lambda: first_two_convolutions(depthwise=ops.Conv(torch.randn(12, 1, 11, 11)), padding=1),
    ),
    "block width": (
        ValueError,
        "depthwise.weight must have shape",
        lambda: block(depthwise=ops.Conv(torch.randn(6, 1, 3, 3))),
    ),
    "block residual": (
        ValueError,
        "residual=True needs",
        lambda: block(residual=True, stride=2),
    ),
    "block project": (
        ValueError,
        "project.weight must have shape",
        lambda: block(project=ops.Conv(torch.randn(6, 6))),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_argument(case: str) -> None:
    error, message, call = CASES[case]
    with pytest.raises(error, match=message):
        call()


def test_batch_norm_without_running_statistics() -> None:
    with pytest.raises(ValueError, match="track_running_stats=False"):
        ops.BatchNorm.of(torch.nn.BatchNorm2d(3, track_running_stats=False))


def test_the_good_block_runs() -> None:
    assert block(residual=True).shape == X.shape
