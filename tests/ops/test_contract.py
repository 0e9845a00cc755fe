"""What holds for every op: PyTorch's opcheck, compilation, layout, FLOPs, gradients, and special inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from effkernels.ops import _define
from specs.samples import labels, samples
from tiers import slow_unless

LABELS = labels()
# One sample per op, whose compilation (a second or more each) is tested by default.
FIRST = tuple({label.split("-")[0]: label for label in reversed(LABELS)}.values())
# With asymmetric padding the reference computes one row or column more than the op.
SYMMETRIC = [x for x in LABELS if not any(s in x for s in ("same", "odd", "ragged"))]

# Ops whose first result is a mean, which is float32 also for 16-bit images.
MEANS = ("squeeze_excite_gate", "pointwise_conv_bn_act_pool")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


def sample(label: str, dtype: torch.dtype = torch.float32):
    return samples(dtype)[LABELS.index(label)]


def public(name: str) -> Any:
    return getattr(torch.ops.effkernels, name).default


def tensors(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def with_gradients(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copies that require gradients, except for statistics, which BatchNorm does not differentiate, and integers."""
    names = [a.name for a in public(name)._schema.arguments]
    return tuple(
        a.detach().clone().requires_grad_("running" not in name and a.is_floating_point())
        if isinstance(a, Tensor)
        else a
        for name, a in zip(names, arguments, strict=True)
    )


@pytest.mark.parametrize("label", slow_unless(FIRST, LABELS))
def test_opcheck(label: str) -> None:
    case = sample(label)
    op = public(case.name)
    utils = "test_schema", "test_autograd_registration", "test_faketensor"
    torch.library.opcheck(op, with_gradients(case.name, case.flat), test_utils=utils)
    # Compiled gradients are added in another order, for which float32's tolerance is too narrow.
    exact = sample(label, torch.float64)
    dispatched = ("test_aot_dispatch_dynamic",)
    torch.library.opcheck(op, with_gradients(case.name, exact.flat), test_utils=dispatched)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("label", LABELS)
def test_fake_has_the_shape_dtype_and_exact_strides(label: str, dtype: torch.dtype) -> None:
    case = sample(label, dtype)
    real = tensors(public(case.name)(*case.flat))
    with torch._subclasses.FakeTensorMode() as mode:
        flat = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in case.flat]
        fake = tensors(public(case.name)(*flat))
    for r, f in zip(real, fake, strict=True):
        assert (r.shape, r.dtype, r.stride()) == (f.shape, f.dtype, f.stride())


@pytest.mark.parametrize("label", LABELS)
def test_front_and_public_op_agree(label: str) -> None:
    case = sample(label, torch.float64)
    for ours, flat in zip(
        tensors(case.front()), tensors(public(case.name)(*case.flat)), strict=True
    ):
        torch.testing.assert_close(ours, flat, rtol=1e-12, atol=1e-12)
        if ours.dim() == 4:
            assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("label", slow_unless(FIRST, LABELS))
def test_compiles_without_graph_break_or_change(label: str) -> None:
    case = sample(label, torch.float64)
    compiled = torch.compile(case.front, fullgraph=True, backend="aot_eager")
    for ours, eager in zip(tensors(compiled()), tensors(case.front()), strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-12, atol=1e-12)


def test_inductor_compiles_the_block() -> None:
    case = sample("mbconv-full")
    compiled = torch.compile(case.front, fullgraph=True)
    torch.testing.assert_close(compiled(), case.front(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("label", LABELS)
def test_public_op_differentiates_twice_as_its_reference(label: str) -> None:
    # The autograd formula recomputes with the reference: it must give the reference's gradients, first and second,
    # for all tensors that eager PyTorch differentiates.
    case = sample(label, torch.float64)
    reference = _define.defined(case.name).reference
    ours, theirs = with_gradients(case.name, case.flat), with_gradients(case.name, case.flat)
    found = []
    for arguments, run in ((ours, public(case.name)), (theirs, reference)):
        wanted = [a for a in arguments if isinstance(a, Tensor) and a.requires_grad]
        torch.manual_seed(0)
        value = sum(
            (r * torch.randn(r.shape, dtype=r.dtype)).sum() for r in tensors(run(*arguments))
        )
        first = torch.autograd.grad(value, wanted, create_graph=True, allow_unused=True)
        energy = sum(g.square().sum() for g in first if g is not None)
        second = torch.autograd.grad(energy, wanted, allow_unused=True)
        found.append((*first, *second))
    assert [g is None for g in found[0]] == [g is None for g in found[1]]
    assert sum(g is not None for g in found[0]) > 2
    for a, b in zip(*found, strict=True):
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("label", SYMMETRIC)
def test_flops_are_those_of_the_convolutions(label: str) -> None:
    # The FLOP formula of the public op, compared with PyTorch's count of the reference's convolutions.
    case = sample(label)
    with FlopCounterMode(display=False) as ours:
        public(case.name)(*case.flat)
    with FlopCounterMode(display=False) as reference:
        _define.defined(case.name).reference(*case.flat)
    assert ours.get_total_flops() == reference.get_total_flops() > 0


def test_flops_with_asymmetric_padding() -> None:
    case = sample("depthwise_conv_bn_act-5x5/2-same")
    with FlopCounterMode(display=False) as counter:
        public(case.name)(*case.flat)
    assert counter.get_total_flops() == 2 * 2 * 3 * 4 * 5 * 25


@pytest.mark.parametrize("label", LABELS)
def test_empty_batch_gives_an_empty_result(label: str) -> None:
    case = sample(label)
    n = case.flat[0].shape[0]
    flat = tuple(
        a[:0] if isinstance(a, Tensor) and i in _batched(case.name, a, n) else a
        for i, a in enumerate(case.flat)
    )
    for empty, full in zip(
        tensors(public(case.name)(*flat)), tensors(public(case.name)(*case.flat)), strict=True
    ):
        assert empty.shape == (0, *full.shape[1:])


def _batched(name: str, argument: Tensor, n: int) -> tuple[int, ...]:
    # x (or pooled) comes first in every schema; gate and residual are the pointwise op's 8th and 9th.
    return (0, 8, 9) if name == "pointwise_conv_bn_act" else (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("label", LABELS)
def test_sixteen_bits_in_sixteen_bits_out(label: str, dtype: torch.dtype) -> None:
    case = sample(label, dtype)
    results = tensors(case.front())
    first = torch.float32 if case.name in MEANS else dtype
    assert results[0].dtype == first
    assert all(r.dtype == torch.float32 for r in results[1:])
    assert all(torch.isfinite(r).all() for r in results)


@pytest.mark.parametrize("label", LABELS)
def test_autocast_casts_images_and_weights_and_keeps_statistics(label: str) -> None:
    case = sample(label)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = tensors(case.front())
        assert torch.is_autocast_enabled("cpu")
    assert results[0].dtype == (torch.float32 if case.name in MEANS else torch.bfloat16)
    assert all(r.dtype == torch.float32 for r in results[1:])


@pytest.mark.parametrize("label", [x for x in LABELS if not x.startswith("squeeze_excite_gate")])
def test_nchw_sliced_and_expanded_input_give_the_same(label: str) -> None:
    case = sample(label, torch.float64)
    x, rest = case.flat[0], case.flat[1:]
    want = tensors(public(case.name)(x, *rest))
    sliced = torch.stack((x, x + 1), -1)[..., 0]
    nhwc = x.contiguous(memory_format=torch.channels_last)
    for same in (sliced, nhwc, x.transpose(2, 3).contiguous().transpose(2, 3)):
        for a, b in zip(tensors(public(case.name)(same, *rest)), want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
            assert a.stride() == b.stride()
