"""Feature maps by a plan: what the layers make, by one op, as long as they are what they were."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

import effkernels
from effkernels import EfficientNet, EfficientNetFeatures, dispatch
from effkernels._backends.network_ops import HeldNetwork
from effkernels.models import inference
from networks import backbone_of, small_copy

pytestmark = pytest.mark.skipif(
    not effkernels.backends()["cpu"].available, reason="the cpu backend is not built"
)
X = torch.randn(2, 3, 40, 33, generator=torch.Generator().manual_seed(5))
Model = EfficientNet | EfficientNetFeatures
CALLS = 4  # a plan is made, bound, and used


@pytest.fixture(autouse=True)
def _same_weights_each_time() -> None:
    """How much a change matters depends on them: it must be more than rounding."""
    torch.manual_seed(7)


def backbone(**options: Any) -> EfficientNetFeatures:
    """The maps of a small network in eval mode, of its weights."""
    return backbone_of(small_copy(), **options).requires_grad_()


def maps(model: Model, x: Tensor = X) -> list[Tensor]:
    found = model.forward_features(x) if isinstance(model, EfficientNet) else model(x)
    return found if isinstance(found, list) else [found]


@contextmanager
def ops_called() -> Iterator[list[str]]:
    """What the op for whole networks is given, call by call."""
    seen: list[str] = []
    given, held = torch.ops.effkernels_cpu.network_maps, HeldNetwork.__call__
    op = given.default

    def run(*arguments: Any) -> Any:
        seen.append("tensors")
        return op(*arguments)

    def run_held(self: HeldNetwork, x: Tensor) -> Any:
        seen.append("a number")
        return held(self, x)

    with (
        mock.patch.object(given, "default", run),
        mock.patch.object(HeldNetwork, "__call__", run_held),
    ):
        yield seen


def layer_by_layer(model: Model, x: Tensor = X) -> list[Tensor]:
    with mock.patch.object(inference, "maps", return_value=None), torch.no_grad():
        return maps(model, x)


@contextmanager
def layers_called() -> Iterator[list[type]]:
    """The layers whose own Python runs."""
    seen: list[type] = []
    call = nn.Module.__call__

    def noted(self: nn.Module, *arguments: Any, **options: Any) -> Any:
        seen.append(type(self))
        return call(self, *arguments, **options)

    with (
        mock.patch.object(nn.Module, "__call__", noted),
        mock.patch("effkernels.nn._plain._CALL", noted),
    ):
        yield seen


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert ours.stride() == theirs.stride()


MODELS: dict[str, Callable[[], Model]] = {
    "the last map": lambda: small_copy().eval(),
    "of a fused copy": lambda: small_copy().eval().fuse(),
    "padded as by TensorFlow": lambda: small_copy(padding="same").eval(),
    "all maps": backbone,
    "some maps": lambda: backbone(out_indices=(3, -4, 3)),
}


@pytest.mark.parametrize("images", ["nchw", "nhwc", "bytes", "none"])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_maps_are_those_of_the_layers(name: str, images: str) -> None:
    model, x = MODELS[name](), X
    if images == "nhwc":
        x = x.contiguous(memory_format=torch.channels_last)
    elif images == "bytes":
        x = torch.randint(256, X.shape, dtype=torch.uint8)
    elif images == "none":
        x = x[:0]
    expected = layer_by_layer(model, x)
    with layers_called() as called:
        for _ in range(CALLS):
            assert_same(maps(model, x), expected)
    assert set(called) <= {type(model)}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_one_op_makes_them(name: str) -> None:
    """Given all tensors until it holds them. Whatever is asked for, each map is made once."""
    model = MODELS[name]()
    with ops_called() as called:
        for _ in range(CALLS):
            found = maps(model)
        assert called == ["tensors"] * 2 + ["a number"] * (CALLS - 2)
    if name == "some maps":
        assert found[0] is found[2]


@torch.no_grad()
def test_images_in_chunks() -> None:
    """The maps of the batch are larger than a chunk; the last chunk is smaller."""
    model, x = backbone(), torch.randn(5, 3, 480, 480)
    for _ in range(CALLS):
        found = maps(model, x)
    for i in (0, 4):
        for ours, alone in zip(found, maps(model, x[i : i + 1]), strict=True):
            torch.testing.assert_close(ours[i : i + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["the last map", "all maps"])
@torch.no_grad()
def test_autocast_and_other_backends_run_the_layers(name: str) -> None:
    model = MODELS[name]()
    for _ in range(CALLS):
        maps(model)
    with ops_called() as called:
        with effkernels.use_backend("torch"):
            assert_same(maps(model), layer_by_layer(model))
        with torch.autocast("cpu", torch.bfloat16):
            found = maps(model)
            assert found[-1].dtype == torch.bfloat16
            assert all(map(torch.equal, found, layer_by_layer(model)))
        assert not called


@pytest.mark.parametrize("name", ["the last map", "all maps"])
def test_exported_maps(name: str) -> None:
    """One graph, of the ops of the layers."""
    model = MODELS[name]().requires_grad_(False)
    expected = maps(model)

    class Exported(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> list[Tensor]:
            return maps(self.model, x)

    program = torch.export.export(Exported(), (X,))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "effkernels.mbconv.default" in called
    assert not any("network" in target for target in called)
    assert_same(list(program.module()(X)), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_maps_of_16_bits(dtype: torch.dtype) -> None:
    model, x = backbone().to(dtype), X.to(dtype)
    expected = layer_by_layer(model, x)
    for _ in range(CALLS):
        for ours, theirs in zip(maps(model, x), expected, strict=True):
            assert torch.equal(ours, theirs)  # the same kernels


def _weight(model: Model) -> None:
    conv = model.stages[1][0].project.conv
    conv.weight = nn.Parameter(-conv.weight.detach())


def _data(model: Model) -> None:
    conv = model.stages[1][0].project.conv
    conv.weight.data = conv.weight.data.flip(0)


def _in_place(model: Model) -> None:
    model.stages[1][0].project.conv.weight.detach().neg_()


def _eps(model: Model) -> None:
    model.stages[1][0].project.bn.eps = 0.9


def _hook(model: Model) -> None:
    model.stages[1].register_forward_hook(lambda _m, _i, y: y * -2)


def _forward(model: Model) -> None:
    act = model.stages[1][0].depthwise.act
    act.forward = lambda x: x * -2


def _block(model: Model) -> None:
    model.stages[3][1] = nn.Tanh()


def _stem(model: Model) -> None:
    model.stem = nn.Sequential(model.stem, nn.Tanh())


def _mode(model: Model) -> None:
    model.stages[1][0].project.bn.train().momentum = 0.0


CHANGES = (_weight, _data, _in_place, _eps, _hook, _forward, _block, _stem, _mode)


@pytest.mark.parametrize("calls", [1, CALLS])
@pytest.mark.parametrize("name", ["the last map", "all maps"])
@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_changes_take_effect(change: Callable[[Model], None], name: str, calls: int) -> None:
    model = MODELS[name]()
    for _ in range(calls):
        before = maps(model)
    change(model)
    expected = layer_by_layer(model)
    for _ in range(CALLS):
        after = maps(model)
        for ours, theirs in zip(after, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(after[-1], before[-1], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_other_maps_are_asked_for() -> None:
    model = backbone()
    every = [maps(model) for _ in range(CALLS)][-1]
    model._taken = model._taken[1:3]
    for _ in range(CALLS):
        assert_same(maps(model), every[1:3])


def test_gradients_are_taken_layer_by_layer() -> None:
    for model in (small_copy().eval(), backbone()):
        with torch.no_grad():
            for _ in range(CALLS):
                maps(model)
        maps(model)[-1].sum().backward()
        assert model.stem.conv.weight.grad is not None


@torch.no_grad()
def test_subclasses_and_shadowed_methods_run_as_they_are() -> None:
    class Mine(EfficientNetFeatures):
        def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
            return super()._run(stage, x) * 2

    model = backbone()
    mine = Mine(model.config).eval()
    mine.load_state_dict(model.state_dict())
    assert not torch.allclose(mine(X)[0], model(X)[0], rtol=1e-3, atol=1e-3)
    run = model._run
    expected = [maps(model) for _ in range(CALLS)][-1][0] * 2
    model._run = lambda stage, x: run(stage, x) * 2  # type: ignore[method-assign]
    torch.testing.assert_close(maps(model)[0], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_who_watches_sees_the_layers() -> None:
    model = backbone()
    for _ in range(CALLS):
        maps(model)
    found = effkernels.explain(model, X)
    assert {"stem", "stages.1.0"} <= {row.name for row in found.rows}
    assert {row.call for row in found.rows} == {1}
    assert not found.notes
    found = effkernels.explain(nn.Sequential(model.requires_grad_(False)), X)
    assert {row.call for row in found.rows} == {1}
    model.stages[1].register_forward_hook(lambda *_: None)
    found = effkernels.explain(model, X)
    assert found.calls > 1
    assert found.notes[0] == "layer by layer, not by one call of network: there are hooks"
    model.stages[1]._forward_hooks.clear()
    with effkernels.use_backend("torch"):
        assert_same(maps(model), layer_by_layer(model))


@torch.no_grad()
def test_maps_and_logits_have_plans_of_their_own() -> None:
    model = small_copy().eval()
    logits = [model(X) for _ in range(CALLS)][-1]
    last = [maps(model) for _ in range(CALLS)][-1]
    assert torch.equal(model(X), logits)
    torch.testing.assert_close(model.forward_head(last[0]), logits, rtol=1e-4, atol=1e-4)
    other = copy.deepcopy(model)
    other.head.conv.weight.zero_()
    assert not torch.allclose(maps(other)[0], last[0])
    assert dispatch.is_plain_call()
