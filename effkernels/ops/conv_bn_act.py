"""Dense convolution + BatchNorm + activation: the stem, which can take uint8 images and normalise them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from effkernels import reference
from effkernels.ops._arguments import BatchNorm, check_beside
from effkernels.ops._define import Op, define, nhwc_empty
from effkernels.ops._repeated import NO_NORM, Repeats
from effkernels.ops._schema import Norm, Pair, Sides, named, schema
from effkernels.ops._window import checked, flops, result_size


class ConvArguments(NamedTuple):
    """The arguments of :class:`WindowArguments`, and the mean and std that normalise images."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    bn_weight: Tensor | None
    bn_bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    eps: float
    stride: Pair
    padding: Sides
    dilation: Pair
    activation: str
    mean: Tensor | None
    std: Tensor | None

    @property
    def norm(self) -> Norm:
        """The bias and BatchNorm of the convolution."""
        statistics = (self.running_mean, self.running_var, self.eps)
        return Norm(self.bias, self.bn_weight, self.bn_bias, *statistics)


def _fake(a: ConvArguments) -> Tensor:
    return nhwc_empty(a.weight, result_size(a))  # x may be uint8


_OP = define(
    Op(
        "conv_bn_act",
        schema(ConvArguments, "Tensor"),
        reference.conv_bn_act,
        named(ConvArguments, _fake),
        named(ConvArguments, flops),
    )
)
_repeats = Repeats(_OP)


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
    mean: Tensor | None = None,
    std: Tensor | None = None,
) -> Tensor:
    """``activation(bn(conv((x - mean) / std) + bias))`` with a dense k x k kernel, in one pass over memory.

    Args:
        x: (N, C_in, H, W), floating point, or uint8 for pixels from 0 to 255. uint8 images are read directly
            from NCHW or NHWC memory.
        weight: (C_out, C_in, kernel height, kernel width), dtype of ``x``; any floating dtype if ``x`` is
            uint8.
        bias: (C_out,), or None.
        bn: inference BatchNorm of C_out channels, or None. Pass a module's with ``BatchNorm.of(module)``.
        stride, dilation: an int or (vertical, horizontal).
        padding: zeros around ``x`` in pixels: an int, (vertical, horizontal) or (top, bottom, left, right).
            With ``mean`` and ``std``, padding is zero after normalisation.
        activation: "silu", "relu", "relu6", "hardswish" or "identity".
        mean, std: (C_in,) each, floating point, in units of ``x``, to normalise it in float32
            (float64 for a float64 ``weight``). Both, or neither.

    Returns:
        (N, C_out, H_out, W_out), dtype of ``weight``, channels_last.

    Raises:
        ValueError: shapes, devices or values do not fit; the message names the argument.
        TypeError: a tensor is not floating point (apart from uint8 images), or the dtypes of ``x`` and
            ``weight`` differ outside of autocast.
    """
    op = "conv_bn_act"
    kinds = None
    if mean is None and std is None:
        kinds = _repeats.kinds(x, weight, bias, bn, stride, padding, dilation, activation)
    if kinds is not None:
        y: Tensor | None = _repeats.call(kinds, x, weight, bias, *(bn or NO_NORM))
        if y is not None:
            return y
    window = checked(
        op, x, weight, bias, bn, stride, padding, dilation, activation, depthwise=False
    )
    for name, vector, other in (("mean", mean, std), ("std", std, mean)):
        if vector is not None:
            check_beside(op, name, vector, x, (x.shape[1],))
        elif other is not None:
            raise ValueError(f"{op}: {name} is None: to normalise x, pass both mean and std")
    arguments = ConvArguments(*window, mean=mean, std=std)
    result: Tensor = _OP(*arguments)
    _repeats.remember(kinds, arguments, others=6)
    return result
