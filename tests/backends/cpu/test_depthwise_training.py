"""Depthwise layers that train on a CPU: the kernels' results and gradients, and where PyTorch's run instead."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import effkernels
from cpu_kernels import instruction_set, threads, usable_instruction_sets
from effkernels.nn import ConvBnAct, _depthwise_training
from effkernels.nn.conv_bn_act import Conv2dSame, convolve
from effkernels.ops._depthwise_conv_wgrad import DEPTHWISE_WGRAD
from specs.tolerance import assert_within_eager

LAST = torch.channels_last


@dataclass(frozen=True)
class Window:
    """A batch of feature maps, and the window that slides over them."""

    images: int
    channels: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)


WINDOWS = {
    "3x3": Window(2, 24, (9, 15), (3, 3), padding=(1, 1, 1, 1)),
    "3x3 of stride 2, 'same'": Window(3, 40, (12, 10), (3, 3), (2, 2), (0, 1, 0, 1)),
    "5x5, channels in two chunks": Window(2, 150, (8, 9), (5, 5), padding=(2, 2, 2, 2)),
    "5x5 of stride 2": Window(2, 17, (13, 21), (5, 5), (2, 2), (2, 2, 2, 2)),
    "5x5, maps of one pixel": Window(70, 33, (1, 1), (5, 5), padding=(2, 2, 2, 2)),
    "7x7, several groups of rows": Window(2, 9, (25, 50), (7, 7), padding=(3, 3, 3, 3)),
    "7x7 of stride 2": Window(1, 16, (14, 15), (7, 7), (2, 2), (3, 3, 3, 3)),
    "without padding, rows left over": Window(2, 8, (8, 8), (3, 3), (2, 2)),
    "more padding than kernel": Window(1, 5, (4, 3), (3, 3), padding=(4, 3, 5, 2)),
    "1 by 4": Window(2, 19, (6, 9), (1, 4), (1, 3), (0, 0, 2, 1)),
    "dilated": Window(2, 20, (11, 12), (3, 3), padding=(2, 2, 3, 3), dilation=(2, 3)),
    "stride 2 by 1": Window(2, 16, (9, 9), (3, 3), (2, 1), (1, 1, 1, 1)),
    "no images": Window(0, 16, (4, 4), (3, 3), padding=(1, 1, 1, 1)),
}


def tensors(w: Window, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    x = torch.randn(w.images, w.channels, *w.size).contiguous(memory_format=LAST)
    return x, torch.randn(w.channels, 1, *w.kernel)


def plain(x: Tensor, weight: Tensor, w: Window) -> Tensor:
    top, bottom, left, right = w.padding
    x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, weight, None, w.stride, 0, w.dilation, w.channels)


def ours(x: Tensor, weight: Tensor, w: Window) -> Tensor:
    return _depthwise_training.depthwise(x, weight, w.stride, w.padding, w.dilation)


def passes(run, x: Tensor, weight: Tensor, w: Window, seed: int) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """Result, and gradients of x and of the weight."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = run(x, weight, w)
    torch.manual_seed(seed + 1)
    grad = torch.randn(y.shape).to(y.dtype).contiguous(memory_format=LAST)
    return [y.detach(), *torch.autograd.grad(y, (x, weight), grad)]


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("isa", usable_instruction_sets())
def test_gradients(name: str, isa: str, seed: int) -> None:
    w = WINDOWS[name]
    x, weight = tensors(w, seed)
    with instruction_set(isa):
        found = passes(ours, x, weight, w, seed)
        with threads(3):
            again = passes(ours, x, weight, w, seed)
    eager = passes(plain, x, weight, w, seed)
    exact = passes(plain, x.double(), weight.double(), w, seed)
    taps = w.kernel[0] * w.kernel[1]
    pixels = exact[0].numel() // w.channels
    magnitudes = passes(plain, x.double().abs(), weight.double().abs(), w, seed)
    for i, depth in enumerate((taps, taps, pixels)):
        assert torch.equal(found[i], again[i])  # whatever the number of threads
        largest = magnitudes[i].abs().max().item() if magnitudes[i].numel() else 0.0
        assert_within_eager(found[i], eager[i], exact[i], magnitude=largest, depth=max(depth, 1))


def test_the_kernel_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    run = DEPTHWISE_WGRAD.run
    monkeypatch.setattr(DEPTHWISE_WGRAD, "run", lambda *a: found.append(a[0].shape) or run(*a))
    monkeypatch.setattr(DEPTHWISE_WGRAD, "reference", None)  # would fail
    monkeypatch.setattr(DEPTHWISE_WGRAD, "composed", None)
    model = effkernels.efficientnet_b0(drop_path=0.0).train()
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert len(found) == 16  # blocks
    found.clear()
    with effkernels.use_backend("torch"):
        monkeypatch.undo()
        model(torch.randn(2, 3, 32, 32)).sum().backward()


def layer(**changes: object) -> ConvBnAct:
    options: dict[str, object] = {"stride": 2, "groups": 16, "padding": "same", **changes}
    return ConvBnAct(16, 16, 5, **options).train()  # type: ignore[arg-type]


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_a_layer_learns_what_it_learns_without_the_kernels(padding: str, seed: int) -> None:
    torch.manual_seed(seed)
    made, x = layer(padding=padding), torch.randn(3, 16, 10, 12).contiguous(memory_format=LAST)
    found = []
    for backend in ("cpu", "torch"):
        made.zero_grad()
        inside = x.clone().requires_grad_()
        with effkernels.use_backend(backend):
            made(inside).square().sum().backward()
        found.append([inside.grad, *(p.grad for p in made.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        assert a.stride() == b.stride()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST])
def test_gradients_of_weights_have_their_strides(memory_format: torch.memory_format) -> None:
    made = layer().to(memory_format=memory_format)
    made(torch.randn(2, 16, 8, 8).contiguous(memory_format=LAST)).sum().backward()
    assert made.conv.weight.grad.stride() == made.conv.weight.stride()


def test_gradients_of_gradients(seed: int) -> None:
    w = WINDOWS["5x5 of stride 2"]
    x, weight = tensors(w, seed)
    found = []
    for run in (ours, plain):
        a, b = x.double().clone(), weight.double().clone()
        if run is ours:
            a, b = x.clone(), weight.clone()
        a.requires_grad_()
        b.requires_grad_()
        first = torch.autograd.grad(run(a, b, w).sin().sum(), (a, b), create_graph=True)
        found.append(torch.autograd.grad(first[0].square().sum() + first[1].sin().sum(), (a, b)))
    for ours_, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours_.double(), theirs, rtol=1e-3, atol=1e-2)


def calls(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the kernels compute ``conv(x)``, which must be right in any case."""
    y = convolve(conv, x)
    torch.testing.assert_close(y, conv(x), rtol=1e-4, atol=1e-4)
    return "_Depthwise" in type(y.grad_fn).__name__


def test_where_pytorch_s_own_runs() -> None:
    conv = nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False)
    x = torch.randn(2, 8, 7, 7).contiguous(memory_format=LAST)
    assert calls(conv, x)
    assert calls(Conv2dSame(8, 8, 5, stride=2, groups=8, bias=False), x)
    assert not calls(conv, x.contiguous())
    assert not calls(nn.Conv2d(8, 8, 5, padding=2, groups=8), x)
    assert not calls(nn.Conv2d(8, 8, 5, padding=2, groups=4, bias=False), x)
    assert not calls(nn.Conv2d(8, 16, 5, padding=2, groups=8, bias=False), x)
    assert not calls(nn.Conv2d(8, 8, 5, padding="same", groups=8, bias=False), x)
    circular = nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False, padding_mode="circular")
    assert not calls(circular, x)
    assert not calls(conv.double(), x.double())
    conv.float().weight.requires_grad_(False)
    assert not calls(conv, x.requires_grad_())
    conv.weight.requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolve(conv, x).dtype == torch.bfloat16
    weight, parameters = conv.weight.detach(), {"weight": conv.weight}
    _, tangent = torch.func.jvp(
        lambda w: torch.func.functional_call(conv, parameters | {"weight": w}, (x,)),
        (weight,),
        (torch.ones_like(weight),),
    )
    assert tangent.shape == (2, 8, 7, 7)
