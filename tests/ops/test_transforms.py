"""Every op under torch.func, forward mode, make_fx, torch.export and torch.fx."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import effkernels
from effkernels import dispatch, ops
from effkernels.ops import _define
from recorded_ops import recorded
from specs.samples import labels, samples
from tiers import slow_unless

# uint8 images have no derivatives.
LABELS = [label for label in labels() if "uint8" not in label]
# Ways to call an op: the public function's checked arguments, the public op, a backend's op.
WAYS = ("front", "public", "private")
# One sample per op, whose export (a second or more each) is tested by default.
FIRST = tuple({label.split("-")[0]: label for label in reversed(LABELS)}.values())


def function(
    label: str, way: str
) -> tuple[Callable[[Tensor], Any], Callable[[Tensor], Any], Tensor]:
    """The op and its reference as functions of their first tensor, and that tensor."""
    case = samples(torch.float32)[labels().index(label)]
    contract = _define.defined(case.name)
    run: Any = contract
    if way != "front":
        run = getattr(torch.ops.effkernels, case.name).default
    if way == "private":
        kernel = dispatch._BACKENDS["cpu"].kernels.get(case.name)
        if kernel is None:
            pytest.skip("the cpu backend has no kernel of it here")
        run = kernel.run
    first, *rest = case.flat

    def of(compute: Callable[..., Any]) -> Callable[[Tensor], Any]:
        def call(x: Tensor) -> Any:
            result = compute(x, *rest)
            return result[0] if isinstance(result, tuple) else result

        return call

    return of(run), of(contract.reference), first


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("label", LABELS)
def test_forward_mode_gives_the_tangent(label: str, way: str) -> None:
    run, reference, x = function(label, way)
    tangent = torch.randn_like(x)
    _, want = jvp(reference, (x,), (tangent,))
    assert want.abs().max() > 0.0
    _, ours = jvp(run, (x,), (tangent,))
    torch.testing.assert_close(ours, want)
    with torch.no_grad(), forward_ad.dual_level():
        dual = forward_ad.unpack_dual(run(forward_ad.make_dual(x, tangent)))
        assert dual.tangent is not None
        torch.testing.assert_close(dual.tangent, want)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("label", LABELS)
def test_reverse_mode_and_batches_of_torch_func(label: str, way: str) -> None:
    run, reference, x = function(label, way)
    batch = torch.stack((x, x + 1.0))
    torch.testing.assert_close(vmap(run)(batch), vmap(reference)(batch))
    ours, want = (vmap(grad(lambda y, f=f: f(y).square().sum()))(batch) for f in (run, reference))
    assert want.abs().max() > 0.0
    torch.testing.assert_close(ours, want)


def test_jacobian() -> None:
    run, reference, x = function("squeeze_excite_gate-means", "front")
    torch.testing.assert_close(jacrev(run)(x), jacrev(reference)(x))


def test_public_fronts_take_transformed_tensors() -> None:
    # The public function checks, casts and converts layouts, also for the tensors of vmap, which have no
    # memory format.
    weight = torch.randn(4, 1, 3, 3)
    batch, tangent = torch.randn(2, 3, 1, 4, 5, 5)

    def run(x: Tensor) -> Tensor:
        return ops.depthwise_conv_bn_act(x, weight, padding=1)

    torch.testing.assert_close(vmap(run)(batch), torch.stack([run(x) for x in batch]))
    step = (run(batch[0] + 1e-3 * tangent[0]) - run(batch[0] - 1e-3 * tangent[0])) / 2e-3
    _, ours = jvp(run, (batch[0],), (tangent[0],))
    torch.testing.assert_close(ours, step, rtol=1e-2, atol=1e-3)


def test_compiled_transforms_see_plain_operators() -> None:
    run, reference, x = function("depthwise_conv_bn_act-3x3", "front")
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda y: grad(lambda z: run(z).square().sum())(y), backend="aot_eager", fullgraph=True
    )
    want = grad(lambda z: reference(z).square().sum())(x)
    torch.testing.assert_close(compiled(x), want, rtol=1e-4, atol=1e-4)


def test_an_op_without_gradient_says_so_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_define, "_defined", dict(_define._defined))  # removed after this test
    op = _define.Op(
        "testing_no_gradient", "(Tensor x) -> Tensor", torch.exp, torch.empty_like, lambda *_: 0,
        differentiable=False,
    )  # fmt: skip
    run = _define.define(op).public
    x = torch.ones(2, 3)
    torch.testing.assert_close(run(x), x.exp())
    with pytest.raises(NotImplementedError, match="testing_no_gradient: it has no gradient"):
        run(x.requires_grad_())


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_make_fx_records_the_public_op(backend: str, pre_dispatch: bool) -> None:
    run, _, x = function("mbconv-full", "front")
    with effkernels.use_backend(backend), torch.no_grad():
        traced = make_fx(run, pre_dispatch=pre_dispatch)(x)
    assert recorded(traced.graph) == {"effkernels.mbconv.default"}
    torch.testing.assert_close(traced(x), run(x))


class Call(torch.nn.Module):
    def __init__(self, run: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Any:
        return self.run(x)


@pytest.mark.parametrize("label", slow_unless(FIRST, LABELS))
def test_exported_op_decomposes(label: str) -> None:
    run, _, x = function(label, "public")
    name = f"effkernels.{label.split('-')[0]}.default"
    program = torch.export.export(Call(run), (x,))
    assert recorded(program.graph) == {name}
    decomposed = program.run_decompositions()
    assert recorded(decomposed.graph) == set()
    torch.testing.assert_close(decomposed.module()(x), run(x))


def test_export_keeps_ops_missing_from_its_table() -> None:
    run, _, x = function("mbconv-full", "public")
    program = torch.export.export(Call(run), (x,))
    table = torch.export.default_decompositions()
    del table[torch.ops.effkernels.mbconv.default]
    for kept in (table, {}):
        graph = program.run_decompositions(kept).graph
        assert recorded(graph) == {"effkernels.mbconv.default"}


def test_fx_makes_one_node_of_a_call() -> None:
    weight, x = torch.randn(4, 1, 3, 3), torch.randn(1, 4, 5, 5)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(weight)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = effkernels.ops.depthwise_conv_bn_act(x, self.weight, padding=1) + 1.0
            return y

    traced = torch.fx.symbolic_trace(Network())
    assert torch.equal(traced(x), Network()(x))
    own = ops.depthwise_conv_bn_act  # as if imported by name
    assert own in [node.target for node in traced.graph.nodes]
    with pytest.raises(TypeError, match=r"called as effkernels\.ops\.depthwise_conv_bn_act"):
        torch.fx.symbolic_trace(lambda x: own(x, weight))


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
def test_jit_trace_writes_plain_operators() -> None:
    run, _, x = function("mbconv-full", "front")
    traced = torch.jit.trace(run, x.requires_grad_())
    assert "effkernels::" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), run(x))


def test_is_plain_call_takes_about_a_microsecond() -> None:
    # Ten times as much is allowed, because the machine may be busy.
    assert min(timeit.repeat(dispatch.is_plain_call, number=2000, repeat=20)) / 2000 < 1e-5
