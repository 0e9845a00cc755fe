"""Float64 oracles that end before the day does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def _tap_by_tap(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    kernel_h, kernel_w = weight.shape[2:]
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    height = (x.shape[2] - dilation[0] * (kernel_h - 1) - 1) // stride[0] + 1
    width = (x.shape[3] - dilation[1] * (kernel_w - 1) - 1) // stride[1] + 1
    y = x.new_zeros(x.shape[0], weight.shape[0], height, width)
    if bias is not None:
        y += bias[:, None, None]
    for i in range(kernel_h):
        for j in range(kernel_w):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + stride[0] * (height - 1) + 1, stride[0])
            columns = slice(left, left + stride[1] * (width - 1) + 1, stride[1])
            pixels, tap = x[:, :, rows, columns], weight[:, :, i, j]
            if tap.shape[1] == 1:
                y.addcmul_(pixels, tap[:, :, None])
            else:
                y += torch.einsum("oc,nchw->nohw", tap, pixels)
    return y


class FastFloat64(TorchFunctionMode):
    """Computes float64 depthwise convolutions tap by tap: PyTorch's own goes channel by channel on a CPU."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.conv2d and args[0].dtype == torch.float64 and not kwargs:
            x, weight, bias, stride, padding, dilation, groups = (
                *args,
                *(None, 1, 0, 1, 1)[len(args) - 2 :],
            )
            pairs = [
                (v, v) if isinstance(v, int) else tuple(v) for v in (stride, padding, dilation)
            ]
            depthwise = groups == x.shape[1] == weight.shape[0] > 1
            # PyTorch 2.11 was seen to crash in dense ones of odd windows.
            dense = groups == 1 and weight.shape[1] > 1 and max(weight.shape[2:]) > 1
            if depthwise or dense:
                return _tap_by_tap(x, weight, bias, *pairs)
        return func(*args, **(kwargs or {}))
