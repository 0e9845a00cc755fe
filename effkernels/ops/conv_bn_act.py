"""Dense convolution + BatchNorm + activation: the stem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from effkernels import reference
from effkernels.ops._arguments import BatchNorm
from effkernels.ops._define import Op, define, nhwc_empty
from effkernels.ops._window import SCHEMA, checked, flops, result_size


def _fake(*arguments: Any) -> Tensor:
    return nhwc_empty(arguments[0], result_size(arguments))


_OP = define(Op("conv_bn_act", f"{SCHEMA} -> Tensor", reference.conv_bn_act, _fake, flops))


def conv_bn_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    bn: BatchNorm | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    activation: str = "silu",
) -> Tensor:
    """``activation(bn(conv(x) + bias))`` with a dense k x k kernel, in one pass over memory.

    Args:
        x: (N, C_in, H, W), floating point.
        weight: (C_out, C_in, kernel height, kernel width), dtype of ``x``.
        bias: (C_out,), or None.
        bn: inference BatchNorm of C_out channels, or None. Pass a module's with ``BatchNorm.of(module)``.
        stride, dilation: an int or (vertical, horizontal).
        padding: zeros around ``x`` in pixels: an int, (vertical, horizontal) or (top, bottom, left, right).
        activation: "silu", "relu", "relu6", "hardswish" or "identity".

    Returns:
        (N, C_out, H_out, W_out), dtype of ``x``, channels_last.

    Raises:
        ValueError: shapes, devices or values that do not fit; the message names the argument.
        TypeError: a non-floating tensor, or dtypes of ``x`` and ``weight`` that differ outside autocast.
    """
    window = (stride, padding, dilation, activation)
    y: Tensor = _OP(*checked("conv_bn_act", x, weight, bias, bn, *window, depthwise=False))
    return y
