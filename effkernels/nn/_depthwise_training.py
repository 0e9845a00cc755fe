"""Depthwise convolutions that train on CPUs: the kernels' forward pass and gradients in the place of PyTorch's.

oneDNN, which PyTorch runs, is slow in some of their shapes: the gradient of a 5x5 weight takes most of a training
step's time that is spent in depthwise layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effkernels.dispatch import autocast_enabled, is_plain_call
from effkernels.ops._depthwise_conv_wgrad import DEPTHWISE_WGRAD
from effkernels.ops._schema import Pair, Sides
from effkernels.ops.depthwise_conv_bn_act import DEPTHWISE
from effkernels.reference import conv2d


def trains_here(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether :func:`depthwise` should run in the place of ``conv``, which is plain and has pairs of numbers.

    Depthwise, on a CPU, in float32 and channels_last, and its weight learns.
    """
    weight = conv.weight
    return (
        conv.groups == weight.shape[0]
        and weight.shape[1] == 1
        and conv.bias is None
        and type(x) is Tensor
        and type(weight) in (Tensor, nn.Parameter)
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.dim() == 4
        and x.shape[1] == conv.groups
        and x.is_contiguous(memory_format=torch.channels_last)
        and torch.is_grad_enabled()
        and weight.requires_grad
        and is_plain_call()
        and not autocast_enabled("cpu")
    )


def depthwise(x: Tensor, weight: Tensor, stride: Pair, padding: Sides, dilation: Pair) -> Tensor:
    """The convolution of x (N, C, H, W) with weight (C, 1, kernel height, kernel width), without a bias.

    Its gradients can be differentiated again, through PyTorch's operators.
    """
    apply: Any = _Depthwise.apply
    y: Tensor = apply(x, weight, stride, padding, dilation)
    return y


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Sides, dilation: Pair
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.window = stride, padding, dilation
        return _convolution(x, weight, stride, padding, dilation)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # of the gradients, gradients are wanted
            return *_differentiable(x, weight, grads[0], wanted, ctx.window), None, None, None
        found: list[Tensor | None] = [None, None]
        if wanted[0]:
            found[0] = _input_grad(x, weight, grads[0], *ctx.window)
        if wanted[1]:
            grad = DEPTHWISE_WGRAD.run(x, grads[0], weight, *ctx.window)
            found[1] = _like(grad.view(weight.shape), weight)
        return *found, None, None, None


def _convolution(x: Tensor, weight: Tensor, stride: Pair, padding: Sides, dilation: Pair) -> Tensor:
    nothing = (None, None, None, None, None, 0.0)
    y: Tensor = DEPTHWISE.run(x, weight, *nothing, stride, padding, dilation, "identity")
    return y


def _input_grad(
    x: Tensor, weight: Tensor, grad: Tensor, stride: Pair, padding: Sides, dilation: Pair
) -> Tensor:
    """With stride 1 it is a convolution itself, with the kernel turned around."""
    kernel = weight.shape[2:]
    (vertical, horizontal), (top, bottom, left, right) = (
        [(size - 1) * step for size, step in zip(kernel, dilation, strict=True)],
        padding,
    )
    around = (vertical - top, vertical - bottom, horizontal - left, horizontal - right)
    if tuple(stride) == (1, 1) and min(around) >= 0:
        return _convolution(grad, weight.flip(2, 3), stride, around, dilation)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = conv2d(x, weight.detach(), None, stride, padding, dilation, weight.shape[0])
    return torch.autograd.grad(y, x, grad)[0]


def _differentiable(
    x: Tensor, weight: Tensor, grad: Tensor, wanted: Sequence[bool], window: Any
) -> list[Tensor | None]:
    # Views: the gradients stay connected to the inputs, and nothing else is differentiated.
    both = [x.view_as(x), weight.view_as(weight)]
    stride, padding, dilation = window
    y = conv2d(both[0], both[1], None, stride, padding, dilation, weight.shape[0])
    inputs = [tensor for tensor, want in zip(both, wanted, strict=True) if want]
    made = iter(torch.autograd.grad(y, inputs, grad, create_graph=True))
    return [next(made) if want else None for want in wanted]


def _like(grad: Tensor, weight: Tensor) -> Tensor:
    """With the weight's own strides, which differ where a dimension has size one; see ``weight_of``."""
    height, width = weight.shape[2:]
    dense = (height * width, width, 1)
    own = weight.stride()
    return grad.as_strided(weight.shape, own) if (own[0], *own[2:]) == dense else grad
