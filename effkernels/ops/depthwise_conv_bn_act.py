"""Depthwise convolution + BatchNorm + activation, alone and with the squeeze of squeeze-excitation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from effkernels import reference
from effkernels.ops._arguments import BatchNorm
from effkernels.ops._define import Op, define, nhwc_empty
from effkernels.ops._repeated import NO_NORM, Repeats
from effkernels.ops._schema import named, schema
from effkernels.ops._window import WindowArguments, checked, flops, result_size
from effkernels.reference.elementwise import accumulate_dtype


def _fake(a: WindowArguments) -> Tensor:
    return nhwc_empty(a.x, result_size(a))


def _fake_pool(a: WindowArguments) -> tuple[Tensor, Tensor]:
    y = _fake(a)
    return y, y.new_empty(y.shape[:2], dtype=accumulate_dtype(y.dtype))


DEPTHWISE = define(
    Op(
        "depthwise_conv_bn_act",
        schema(WindowArguments, "Tensor"),
        reference.depthwise_conv_bn_act,
        named(WindowArguments, _fake),
        named(WindowArguments, flops),
    )
)
DEPTHWISE_POOL = define(
    Op(
        "depthwise_conv_bn_act_pool",
        schema(WindowArguments, "(Tensor, Tensor)"),
        reference.depthwise_conv_bn_act_pool,
        named(WindowArguments, _fake_pool),
        named(WindowArguments, flops),
    )
)
_repeats, _repeats_pool = Repeats(DEPTHWISE), Repeats(DEPTHWISE_POOL)


def depthwise_conv_bn_act(
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
    """``activation(bn(depthwise_conv(x) + bias))`` in one pass over memory.

    On GPUs of compute capability 9.0 and newer the cuda backend computes 3x3 and 5x5 kernels of stride 1 and 2 in
    float16 and bfloat16 on tensor cores, where C is a multiple of 8. There a NaN or an infinity in one channel of
    ``x`` makes NaN of the other 7 channels of its group of 8 (channels 8 g to 8 g + 7) too, in the pixels whose
    window holds it; in its own channel it is what PyTorch makes of it. With the environment variable
    ``EFFKERNELS_CHANNELS_APART=1``, which is read at each call, kernels without tensor cores keep channels apart.

    Args:
        x: (N, C, H, W), floating point.
        weight: (C, 1, kernel height, kernel width), dtype of ``x``.
        bias: (C,), or None.
        bn: inference BatchNorm of C channels, or None. Pass a module's with ``BatchNorm.of(module)``.
        stride, dilation: an int or (vertical, horizontal).
        padding: zeros around ``x`` in pixels: an int, (vertical, horizontal) or (top, bottom, left, right).
        activation: "silu", "relu", "relu6", "hardswish" or "identity".

    Returns:
        (N, C, H_out, W_out), dtype of ``x``, channels_last.

    Raises:
        ValueError: shapes, devices or values do not fit; the message names the argument.
        TypeError: a tensor is not floating point, or the dtypes of ``x`` and ``weight`` differ outside of
            autocast.
    """
    op = "depthwise_conv_bn_act"
    kinds = _repeats.kinds(x, weight, bias, bn, stride, padding, dilation, activation)
    if kinds is not None:
        y: Tensor | None = _repeats.call(kinds, x, weight, bias, *(bn or NO_NORM))
        if y is not None:
            return y
    arguments = checked(
        op, x, weight, bias, bn, stride, padding, dilation, activation, depthwise=True
    )
    result: Tensor = DEPTHWISE(*arguments)
    _repeats.remember(kinds, arguments, others=4)
    return result


def depthwise_conv_bn_act_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    bn: BatchNorm | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    activation: str = "silu",
) -> tuple[Tensor, Tensor]:
    """:func:`depthwise_conv_bn_act` and, from the same pass, the mean of its result over height and width.

    Returns:
        The result, and its mean: (N, C), float32 (float64 for float64): the squeeze of
        squeeze-excitation (Hu et al. 2018, arXiv 1709.01507). On GPUs its last bits may depend on the number of
        images and on the device; they repeat on the same device for the same shape.

    Arguments, errors and what NaN does are those of :func:`depthwise_conv_bn_act`.
    """
    op = "depthwise_conv_bn_act_pool"
    kinds = _repeats_pool.kinds(x, weight, bias, bn, stride, padding, dilation, activation)
    if kinds is not None:
        both: tuple[Tensor, Tensor] | None = _repeats_pool.call(
            kinds, x, weight, bias, *(bn or NO_NORM)
        )
        if both is not None:
            return both
    arguments = checked(
        op, x, weight, bias, bn, stride, padding, dilation, activation, depthwise=True
    )
    y, pooled = DEPTHWISE_POOL(*arguments)
    _repeats_pool.remember(kinds, arguments, others=4)
    return y, pooled
