"""The plan on backends with kernels of single ops, as on a GPU: kernels are chosen once, then called directly."""

from __future__ import annotations

import os
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effkernels
from effkernels import EfficientNet, dispatch
from effkernels.models import inference
from effkernels.ops import _define
from effkernels.ops._define import defined
from effkernels.ops._steps import NETWORK
from networks import small, small_copy
from stand_in import KERNELS, reference, stand_in

X = torch.randn(2, 3, 40, 33)


@pytest.fixture
def calls() -> Iterator[list[str]]:
    """The op of each kernel that runs."""
    seen: list[str] = []
    with stand_in({op: reference(op, seen) for op in KERNELS}):
        yield seen


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each op for which a backend was chosen."""
    seen: list[str] = []
    choose = dispatch.choose

    def noted(op: str, *arguments: Any, **options: Any) -> Any:
        seen.append(op)
        return choose(op, *arguments, **options)

    monkeypatch.setattr(dispatch, "choose", noted)
    return seen


def layer_by_layer(model: EfficientNet, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.forward_head(model._last_map(x))


def expected_calls(model: EfficientNet) -> list[str]:
    names = ["conv_bn_act"]
    for block in (block for stage in model.stages for block in stage):
        names += [] if block.expand is None else ["pointwise_conv_bn_act"]
        if block.squeeze_excite is None:
            names.append("depthwise_conv_bn_act")
        else:
            names += ["depthwise_conv_bn_act_pool", "squeeze_excite_gate"]
        names.append("pointwise_conv_bn_act")
    return [*names, "pointwise_conv_bn_act_pool"]


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0"])
@torch.no_grad()
def test_kernels_are_chosen_once(name: str, calls: list[str], choices: list[str]) -> None:
    model = small_copy(name).eval()
    expected = layer_by_layer(model, X)
    for turn in range(3):
        calls.clear()
        choices.clear()
        torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-4)
        assert calls == expected_calls(model)
        assert bool(choices) == (turn == 0)
    assert torch.equal(model(X), model(X))


@torch.no_grad()
def test_another_shape_dtype_or_backend_is_chosen_again(
    calls: list[str], choices: list[str]
) -> None:
    model = small_copy().eval()
    model(X)
    for x in (X[:1], X[:, :, :32, :32], X[..., :32], torch.randint(256, X.shape).byte()):
        choices.clear()
        first = model(x)
        assert choices
        choices.clear()
        assert torch.equal(model(x), first)
        assert not choices
    with effkernels.use_backend("torch"):
        count = len(calls)
        model(X)
        model(X)
        assert len(calls) == count
    half = model.bfloat16()
    choices.clear()
    half(X.bfloat16())
    assert choices


def _statistics(model: EfficientNet) -> None:
    model.stages[3][1].depthwise.bn.running_mean.add_(1.0)


def _data(model: EfficientNet) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.25


def _swapped(model: EfficientNet) -> None:
    conv = model.stages[1][0].expand.conv
    conv.weight = nn.Parameter(torch.randn_like(conv.weight))


def _loaded(model: EfficientNet) -> None:
    model.load_state_dict(small(depth=0.5).state_dict())


def _untied(model: EfficientNet) -> None:
    bn = model.stages[3][1].expand.bn
    bn.bias = nn.Parameter(torch.randn_like(bn.bias))


@pytest.mark.parametrize("change", [_statistics, _data, _swapped, _loaded, _untied])
@torch.no_grad()
def test_other_weights_need_no_new_choice(
    change: Callable[[EfficientNet], None], calls: list[str], choices: list[str]
) -> None:
    model = small_copy().eval()
    bn = model.stages[3][1].expand.bn
    bn.bias = bn.weight  # tied until _untied
    before = model(X)
    change(model)
    expected = layer_by_layer(model, X)
    choices.clear()
    found = model(X)
    assert not choices
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, before, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_weights_of_another_shape_are_noticed(calls: list[str], choices: list[str]) -> None:
    """Pruned in place to their first channels: their address stays the same."""
    model = small_copy().eval()
    model(X)
    squeeze = model.stages[3][1].squeeze_excite
    squeeze.reduce.weight.data = squeeze.reduce.weight.data[:1]
    squeeze.reduce.bias.data = squeeze.reduce.bias.data[:1]
    squeeze.expand.weight.data = squeeze.expand.weight.data[:, :1]
    choices.clear()
    torch.testing.assert_close(model(X), layer_by_layer(model, X), rtol=1e-4, atol=1e-4)
    assert NETWORK in choices


@torch.no_grad()
def test_a_later_change_of_a_layer_is_noticed(calls: list[str]) -> None:
    model = small_copy().eval()
    model(X)
    model.stages[3][1].depthwise.act = nn.ReLU()
    torch.testing.assert_close(model(X), layer_by_layer(model, X), rtol=1e-4, atol=1e-4)
    model.stages[3][0].project.bn.eps = 0.5
    torch.testing.assert_close(model(X), layer_by_layer(model, X), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_model_that_fits_no_steps_runs_module_by_module(calls: list[str]) -> None:
    """Its layers raise the error; no kernel reads out of bounds."""
    model = small_copy().eval()
    model(X)
    model.head = small_copy(num_classes=3).eval().head
    conv = model.head.conv
    conv.weight = nn.Parameter(torch.randn(conv.out_channels, conv.in_channels + 1, 1, 1))
    calls.clear()
    with pytest.raises(ValueError, match="weight must have shape"):
        model(X)
    assert "pointwise_conv_bn_act_pool" not in calls


@torch.no_grad()
def test_maps_are_freed_after_their_last_use() -> None:
    """At each kernel's call no more maps are alive than layers would keep: a plan needs no more memory."""
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most: list[int] = []

    def counting(op: str) -> Callable[..., Any]:
        run = reference(op, [])

        def kernel(*arguments: Any) -> Any:
            made = run(*arguments)
            for tensor in made if isinstance(made, tuple) else (made,):
                if tensor.dim() == 4:
                    alive.add(tensor)
            most.append(len(alive))
            return made

        return kernel

    model = small_copy().eval()
    with stand_in({op: counting(op) for op in KERNELS}):
        for _ in range(2):
            most.clear()
            model(X)
            # A block's input, a kernel's input and its result.
            assert max(most) == 3
            assert not alive


def idle(model: EfficientNet) -> dict[str, Callable[..., Any]]:
    """Kernels that do nothing: each returns existing tensors."""
    features = torch.zeros(1, model.classifier.in_features)
    kernels: dict[str, Callable[..., Any]] = {op: lambda x, *_: x for op in KERNELS}
    kernels["depthwise_conv_bn_act_pool"] = lambda x, *_: (x, features)
    kernels["pointwise_conv_bn_act_pool"] = lambda x, *_: features
    return kernels


@torch.no_grad()
def test_python_calls_of_a_forward() -> None:
    """At most 25 Python functions outside of torch in a forward pass of B0, beside those of its 65 kernels."""
    model, x = effkernels.efficientnet_b0().eval(), torch.randn(1, 3, 32, 32)
    inside = os.path.dirname(torch.__file__) + os.sep
    seen: Counter[str] = Counter()

    def profile(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and not code.co_filename.startswith(inside):
            seen[f"{code.co_filename}:{code.co_name}"] += 1

    kernels = idle(model)
    with stand_in(kernels):
        for _ in range(3):
            model(x)
        sys.setprofile(profile)
        try:
            model(x)
        finally:
            sys.setprofile(None)
    launches = sum(n for name, n in seen.items() if name.startswith(__file__))
    assert launches == len(expected_calls(model)) == 65
    assert seen.total() <= 65 + 25, seen


@torch.no_grad()
def test_composites_with_other_computation_are_not_replayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A composite that computes something between its ops runs unchanged at every call."""
    op = defined("mbconv")

    def composed(*arguments: Any) -> Any:
        assert op.composed is not None
        return op.composed(*arguments) * 1.5

    model = small_copy().eval()
    monkeypatch.setitem(_define._defined, "mbconv", replace(op, composed=composed))
    with stand_in({name: reference(name, []) for name in KERNELS}):
        first = model(X)
        assert torch.equal(model(X), first)
        assert not torch.allclose(first, layer_by_layer(model, X), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_forced_backend_that_lacks_an_op_refuses_at_every_call() -> None:
    kernels = {op: reference(op, []) for op in KERNELS if op != "squeeze_excite_gate"}
    model = small_copy().eval()
    with stand_in(kernels), effkernels.use_backend("triton", fallback=False):
        for _ in range(2):
            with pytest.raises(NotImplementedError, match="squeeze_excite_gate: not on the triton"):
                model(X)


def test_plans_are_freed_with_their_models(calls: list[str]) -> None:
    model = small_copy().eval()
    with torch.no_grad():
        model(X)
    assert model in inference._plans
    plan = weakref.ref(inference._plans[model])
    del model
    assert plan() is None


def test_rejections_see_the_arguments_of_kernels() -> None:
    """If a kernel refuses some shapes, those layers run elsewhere, also after the plan was made."""
    refused: list[str] = []
    calls: list[str] = []

    def rejects(x: Tensor, *_: Any) -> str | None:
        if x.shape[1] > 40:
            refused.append("wide")
            return "it is too wide"
        return None

    with stand_in({op: reference(op, calls) for op in KERNELS}), torch.no_grad():
        kernels = dispatch._BACKENDS["triton"].kernels
        kernels["pointwise_conv_bn_act"] = dispatch.Kernel(
            kernels["pointwise_conv_bn_act"].run, rejects
        )
        model = small_copy().eval()
        expected = layer_by_layer(model, X)
        model(X)
        calls.clear()
        refused.clear()
        torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-4)
        assert not refused
        assert (
            0
            < calls.count("pointwise_conv_bn_act")
            < expected_calls(model).count("pointwise_conv_bn_act")
        )
