"""PyTorch's convolutions on a CPU, except where they are too slow for an oracle, or crash."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def _depthwise(
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
    y = x.new_zeros(x.shape[0], x.shape[1], height, width)
    if bias is not None:
        y += bias[:, None, None]
    for i in range(kernel_h):
        for j in range(kernel_w):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + stride[0] * (height - 1) + 1, stride[0])
            columns = slice(left, left + stride[1] * (width - 1) + 1, stride[1])
            y.addcmul_(x[:, :, rows, columns], weight[:, 0, i, j, None, None])
    return y


@contextmanager
def _without_onednn() -> Iterator[None]:
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


class OracleConvolutions(TorchFunctionMode):
    """Avoids two ways in which PyTorch computes convolutions on a CPU.

    It computes depthwise ones in float64 channel by channel; here they are computed tap by tap. Those with a dilation
    go through oneDNN, which crashes if no tap reaches the image: dense ones up to PyTorch 2.13, depthwise ones in
    2.14 too (16 channels of 18x1 pixels, kernel 4x2, stride 2x3, padding 4x5, dilation 2x4). Here they do not use it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not F.conv2d or kwargs:
            return func(*args, **(kwargs or {}))
        x, weight, bias, stride, padding, dilation, groups = (
            *args,
            *(None, 1, 0, 1, 1)[len(args) - 2 :],
        )
        pairs = [(v, v) if isinstance(v, int) else tuple(v) for v in (stride, padding, dilation)]
        depthwise = groups == x.shape[1] == weight.shape[0] > 1
        if depthwise and x.dtype == torch.float64:
            return _depthwise(x, weight, bias, *pairs)
        if pairs[2] != (1, 1):
            with _without_onednn():
                return func(*args)
        return func(*args)
