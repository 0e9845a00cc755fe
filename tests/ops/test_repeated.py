"""Calls whose kinds of arguments were checked before: the same results, and the same errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import effkernels
from effkernels import dispatch, ops
from effkernels.ops import _arguments, _repeated
from specs import (
    conv_bn_act,
    depthwise_conv_bn_act,
    mbconv,
    pointwise_conv_bn_act,
    squeeze_excite,
    squeeze_excite_gate,
)
from specs.case import Case

pytestmark = pytest.mark.skipif(
    not effkernels.backends()["cpu"].available, reason="needs the compiled CPU kernels"
)

CASES: list[Case] = [
    *pointwise_conv_bn_act.SAMPLES.values(),
    *depthwise_conv_bn_act.SAMPLES.values(),
    *conv_bn_act.SAMPLES.values(),
    *squeeze_excite.SAMPLES.values(),
    *squeeze_excite_gate.SAMPLES.values(),
    *mbconv.SAMPLES.values(),
]
CALLS = [(case, op) for case in CASES for op in case.variants if not op.endswith("_squeeze")]


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call of a public op ran without checks; nothing is known at first."""
    found: list[bool] = []
    known = _repeated.Repeats.call

    def call(self: _repeated.Repeats, kinds: Any, *tensors: Any) -> Any:
        result = known(self, kinds, *tensors)
        found.append(result is not None)
        return result

    monkeypatch.setattr(_repeated.Repeats, "call", call)
    return found


def flat(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize(("case", "op"), CALLS, ids=lambda v: getattr(v, "key", v))
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_the_second_call_has_no_checks_and_the_same_bits(
    case: Case, op: str, mode: Callable[[], Any], kernel_calls: list[bool]
) -> None:
    given = case.arguments_of(op, case.arguments())
    if given.get("mean") is not None:
        pytest.skip("images that are normalised are always checked")
    run = getattr(ops, op)
    with mode():
        first, second = flat(run(**given)), flat(run(**given))
    assert kernel_calls[-1]
    for a, b in zip(first, second, strict=True):
        assert a.stride() == b.stride()
        assert torch.equal(a, b)


def pointwise(channels: int = 8) -> dict[str, Any]:
    return {"x": torch.randn(1, channels, 3, 4), "weight": torch.randn(5, channels, 1, 1)}


@torch.no_grad()
def test_mistakes_are_found_after_good_calls() -> None:
    good = pointwise()
    for _ in range(2):
        ops.pointwise_conv_bn_act(**good)
    with pytest.raises(ValueError, match="weight must have shape"):
        ops.pointwise_conv_bn_act(good["x"], torch.randn(5, 4, 1, 2)[:, :, :, :1])
    with pytest.raises(TypeError, match=r"weight is torch\.float64"):
        ops.pointwise_conv_bn_act(good["x"], good["weight"].double())
    with pytest.raises(ValueError, match="activation"):
        ops.pointwise_conv_bn_act(**good, activation="gelu")
    # A weight that changes its shape in place.
    good["weight"].data = good["weight"].reshape(10, 4, 1, 1)
    with pytest.raises(ValueError, match="weight must have shape"):
        ops.pointwise_conv_bn_act(**good)


@torch.no_grad()
def test_values_are_read_at_each_call() -> None:
    good = pointwise()
    for _ in range(2):
        before = ops.pointwise_conv_bn_act(**good, activation="identity")
    good["weight"].mul_(2.0)
    after = ops.pointwise_conv_bn_act(**good, activation="identity")
    torch.testing.assert_close(after, before * 2.0)


@torch.no_grad()
def test_requests_and_watchers_come_first(kernel_calls: list[bool]) -> None:
    good = pointwise()
    expected = ops.pointwise_conv_bn_act(**good)
    with effkernels.use_backend("torch"):
        torch.testing.assert_close(ops.pointwise_conv_bn_act(**good), expected)
    assert not kernel_calls[-1]
    seen: list[str] = []

    class Watcher:
        def chosen(self, decision: dispatch.Decision, run: Any) -> Any:
            seen.append(decision.backend)
            return run

        def declined(self, op: str, reason: str) -> None:
            raise AssertionError(op)

    with dispatch.watching(Watcher()):
        ops.pointwise_conv_bn_act(**good)
    assert seen == ["cpu"]
    ops.pointwise_conv_bn_act(**good)
    assert kernel_calls[-1]


@torch.no_grad()
def test_a_kernel_that_is_replaced_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    good = pointwise()
    for _ in range(2):
        ops.pointwise_conv_bn_act(**good)
    fake = dispatch.Backend("cpu", ("cpu",))
    monkeypatch.setitem(dispatch._BACKENDS, "cpu", fake)
    dispatch.register_kernel(
        "cpu",
        "pointwise_conv_bn_act",
        lambda x, *_: torch.full((1, 5, 3, 4), 7.0),
        lambda *_: None,
    )
    assert bool((ops.pointwise_conv_bn_act(**good) == 7.0).all())


def test_gradients_and_autocast_are_never_bypassed(kernel_calls: list[bool]) -> None:
    good = pointwise()
    for _ in range(2):
        with torch.no_grad():
            ops.pointwise_conv_bn_act(**good)
    weight = good["weight"].requires_grad_()
    torch.autograd.backward(ops.pointwise_conv_bn_act(good["x"], weight).sum())
    assert weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert ops.pointwise_conv_bn_act(good["x"], weight).dtype == torch.bfloat16


@torch.no_grad()
def test_what_cannot_be_compared_is_checked(
    monkeypatch: pytest.MonkeyPatch, kernel_calls: list[bool]
) -> None:
    checks: list[str] = []
    own = _arguments.check_output

    def check(op: str, *others: Any) -> None:
        checks.append(op)
        own(op, *others)

    monkeypatch.setattr("effkernels.ops._window.check_output", check)
    x, weight = torch.randn(1, 6, 5, 5), torch.randn(6, 1, 3, 3)
    for stride in ([1, 1], (1, 1), (1, 1)):
        ops.depthwise_conv_bn_act(x, weight, stride=stride, padding=1)
    assert checks == ["depthwise_conv_bn_act"] * 2  # the list, and the first of the tuples
    assert kernel_calls == [False, True]
