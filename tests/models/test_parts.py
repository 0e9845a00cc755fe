"""Which classifiers are unmodified and run by their plan; all others run module by module, with equal
results.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode

import effkernels
from effkernels import EfficientNet, dispatch
from effkernels.models.efficientnet import _METHODS
from effkernels.models.parts import Parts, plain_parts
from effkernels.nn import Conv2dSame, ConvBnAct, DropPath, MBConv, SqueezeExcite
from networks import small_copy
from stand_in import KERNELS, reference, stand_in

X = torch.randn(2, 3, 40, 33)


seen: list[str] = []


def noted(y: Tensor) -> Tensor:
    """Change the result, and record the call."""
    seen.append("called")
    return y * 2


class Doubled(nn.Module):
    """A user's module around another one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return noted(self.inner(x))


class MySequential(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return noted(super().forward(x))


class Noted(nn.Identity):
    def forward(self, input: Tensor) -> Tensor:
        return noted(input)


def doubled_forward(module: nn.Module) -> None:
    forward = module.forward
    module.forward = lambda x: noted(forward(x))  # type: ignore[method-assign]


def other_convolution(model: EfficientNet) -> None:
    conv = model.head.conv
    conv._conv_forward = lambda x, w, b: noted(nn.functional.conv2d(x, w, b))


def compiled_stage(model: EfficientNet) -> None:
    def backend(graph: Any, _: Any) -> Any:
        def run(*arguments: Any) -> Any:
            return tuple(map(noted, graph(*arguments)))

        return run

    torch._dynamo.reset()  # compilations of other tests count towards its limit
    model.stages[0] = torch.compile(model.stages[0], backend=backend)  # of one block


INSTANCES: dict[str, Callable[[EfficientNet], Any]] = {
    "head.forward": lambda m: doubled_forward(m.head),
    "stem.forward": lambda m: doubled_forward(m.stem),
    "stage.forward": lambda m: doubled_forward(m.stages[3]),
    "block.forward": lambda m: doubled_forward(m.stages[3][1]),
    "layer.forward": lambda m: doubled_forward(m.stages[3][1].project),
    "drop_path.forward": lambda m: doubled_forward(m.stages[3][1].drop_path),
    "gate.forward": lambda m: doubled_forward(m.stages[3][1].squeeze_excite),
    "activation.forward": lambda m: doubled_forward(m.stages[3][1].expand.act),
    "dropout.forward": lambda m: doubled_forward(m.dropout),
    "classifier.forward": lambda m: doubled_forward(m.classifier),
    "conv method": other_convolution,
    "sequential": lambda m: m.stages.__setitem__(3, MySequential(*m.stages[3])),
    "wrapped stage": lambda m: m.stages.__setitem__(3, Doubled(m.stages[3])),
    "wrapped block": lambda m: m.stages[3].__setitem__(1, Doubled(m.stages[3][1])),
    "wrapped conv": lambda m: setattr(m.head, "conv", Doubled(m.head.conv)),
    "appended": lambda m: m.stages.append(Noted()),
    "compiled stage": compiled_stage,
    "hook on a container": lambda m: m.stages[3].register_forward_hook(lambda _m, _i, y: noted(y)),
}


@pytest.fixture(params=["cpu", "stand-in", "torch"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    name: str = request.param
    if name == "stand-in":
        with stand_in({op: reference(op, []) for op in KERNELS}):
            yield name
    elif name == "torch":
        with effkernels.use_backend("torch"):
            yield name
    else:
        if not effkernels.backends()["cpu"].available:
            pytest.skip("the cpu backend is not built")
        yield name


def layer_by_layer(model: EfficientNet, x: Tensor) -> Tensor:
    return model.forward_head(model.forward_features(x))


@pytest.mark.parametrize("change", INSTANCES)
@torch.no_grad()
def test_changes_of_one_model_take_effect(change: str, backend: str) -> None:
    model = small_copy().eval()
    other = copy.deepcopy(model)  # first run after it was changed
    model(X)
    for one in (model, other):
        INSTANCES[change](one)
        seen.clear()
        after = one(X)
        assert seen
        torch.testing.assert_close(after, layer_by_layer(one, X), rtol=1e-4, atol=1e-4)


CLASSES = [
    *(MBConv, ConvBnAct, SqueezeExcite, DropPath, nn.Conv2d, nn.BatchNorm2d),
    *(nn.modules.batchnorm._BatchNorm, nn.SiLU, nn.Sequential, nn.Dropout, nn.Linear),
]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@torch.no_grad()
def test_changes_of_a_class_take_effect(
    cls: type[nn.Module], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_copy().eval()
    before = model(X)
    forward = cls.forward

    def patched(self: nn.Module, *arguments: Any) -> Any:
        return noted(forward(self, *arguments))

    with monkeypatch.context() as patch:
        patch.setattr(cls, "forward", patched)
        seen.clear()
        after = model(X)
        assert seen
        torch.testing.assert_close(after, layer_by_layer(model, X), rtol=1e-4, atol=1e-4)
    seen.clear()
    torch.testing.assert_close(model(X), before, rtol=1e-4, atol=1e-4)
    assert not seen


@torch.no_grad()
def test_changed_methods_of_the_classifiers_class_take_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_copy().eval()
    model(X)
    features = EfficientNet.forward_features
    monkeypatch.setattr(EfficientNet, "forward_features", lambda s, x: noted(features(s, x)))
    seen.clear()
    model(X)
    assert seen


@pytest.mark.parametrize("fused", [False, True])
@torch.no_grad()
def test_a_compiled_stage_is_called(fused: bool) -> None:
    model = small_copy().eval()
    model = model.fuse() if fused else model
    expected = model(X)
    traced: list[int] = []

    def noting(graph: Any, _: Any) -> Any:
        traced.append(1)
        return graph

    torch._dynamo.reset()
    if fused:
        model.stages[0] = torch.compile(model.stages[0], backend=noting)
    else:  # the other way: see above
        model.stages[1][0].compile(backend=noting)
    torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-4)
    assert traced


def replica_of(module: nn.Module) -> nn.Module:
    """A replica like DataParallel's: weights are attributes instead of parameters."""
    replica = module._replicate_for_data_parallel()
    replica._former_parameters = {}
    for name, child in module._modules.items():
        if child is not None:
            replica._modules[name] = replica_of(child)
    for name, parameter in module._parameters.items():
        if parameter is None:
            replica._parameters[name] = None
        else:
            setattr(replica, name, parameter.detach().clone())
    return replica


@pytest.mark.parametrize("fused", [False, True])
@torch.no_grad()
def test_replicas_run_module_by_module(fused: bool, backend: str) -> None:
    model = small_copy().eval()
    model = model.fuse() if fused else model
    expected = model(X)
    replica = replica_of(model)
    assert isinstance(plain_parts(replica, _METHODS), str)
    for _ in range(2):
        torch.testing.assert_close(replica(X), expected, rtol=1e-4, atol=1e-4)


MISSING = ["stem", "stages", "head", "dropout", "classifier"]


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_part_is_a_reason_not_an_error(name: str) -> None:
    for value in (None, 3, nn.Identity(), nn.Sequential()):
        model = small_copy().eval()
        delattr(model, name)
        found = plain_parts(model, _METHODS)
        assert isinstance(found, str)
        setattr(model, name, value)
        found = plain_parts(model, _METHODS)
        if name in ("dropout", "classifier") and isinstance(value, nn.Module):
            assert isinstance(found, Parts)
            assert found.classifier is None
        elif name != "stages" or not isinstance(value, nn.Sequential):
            assert isinstance(found, str)


@pytest.mark.parametrize("part", ["conv", "bn", "act"])
@pytest.mark.parametrize("value", [None, nn.Identity().eval(), "gone"])
def test_parts_of_layers_may_be_anything(part: str, value: Any) -> None:
    model = small_copy().eval()
    layer = model.stages[3][1].project
    if value == "gone":
        delattr(layer, part)
    else:
        setattr(layer, part, value)
    found = plain_parts(model, _METHODS)
    assert isinstance(found, Parts) == (part != "conv" and isinstance(value, nn.Identity))


def test_tensors_that_are_missing(backend: str) -> None:
    model = small_copy().eval()
    with torch.no_grad():
        model(X)
        del model.stages[3][1].project.conv._parameters["weight"]
        with pytest.raises(AttributeError, match="weight"):
            model(X)


@pytest.mark.parametrize("hooked", ["module", "global"])
@torch.no_grad()
def test_counters_that_use_hooks_see_every_layer(hooked: str, backend: str) -> None:
    """Multiply-adds as third-party counters find them, from the shapes that hooks see."""
    model = small_copy().eval()
    model(X)
    counted: list[int] = []

    def count(module: nn.Module, _: Any, y: Tensor) -> None:
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            counted.append(y.numel() * module.weight[0].numel())

    handles = (
        [torch_module.register_module_forward_hook(count)]
        if hooked == "global"
        else [m.register_forward_hook(count) for m in model.modules()]
    )
    model(X)
    for handle in handles:
        handle.remove()
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(counted) == len(layers)
    with flop_counter.FlopCounterMode(display=False) as mode:
        model(X)
    assert mode.get_total_flops() == 2 * sum(counted)


class CountsPlainOperators(TorchDispatchMode):
    """Multiplications of the convolutions and products of PyTorch; other ops cost nothing, as for most counters."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_counter.flop_registry.get(func.overloadpacket)
        if formula is not None and func.namespace == "aten":
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


class KnowsTheOps(CountsPlainOperators):
    sees_effkernels_ops = True


@pytest.mark.parametrize("gradients", [False, True])
def test_counters_that_know_only_plain_operators_count_all(gradients: bool) -> None:
    model = small_copy().eval()
    with flop_counter.FlopCounterMode(display=False) as known:
        model(X)
    with torch.set_grad_enabled(gradients), CountsPlainOperators() as plain:
        counted = model(X)
    assert plain.flops == known.get_total_flops() > 0
    torch.testing.assert_close(counted, model(X), rtol=1e-4, atol=1e-5)
    with KnowsTheOps() as other:
        model(X)
    assert other.flops < plain.flops / 2


def test_replaced_hook_dictionaries_are_watched() -> None:
    """Tools that remove hooks give modules new dictionaries; hooks in these count too."""
    model = small_copy().eval()
    with torch.no_grad():
        model(X)
        stage = model.stages[3]
        stage._forward_hooks = type(stage._forward_hooks)()
        stage.register_forward_hook(lambda _m, _i, y: noted(y))
        seen.clear()
        model(X)
        assert seen


@torch.no_grad()
def test_transforms_and_traces_do_not_use_one_op() -> None:
    model = small_copy().eval()
    heard: list[str] = []

    class Hearing:
        def chosen(self, decision: dispatch.Decision, run: Any) -> Any:
            return run

        def declined(self, op: str, reason: str) -> None:
            heard.append(reason)

    from torch.autograd import forward_ad

    with dispatch.watching(Hearing()), forward_ad.dual_level():
        model(X)
    assert heard == ["PyTorch transforms, traces or records the call"]


def test_unfolded_same_convolution_is_known() -> None:
    model = small_copy(padding="same").eval()
    assert isinstance(model.stem.conv, Conv2dSame)
    assert isinstance(plain_parts(model, _METHODS), Parts)
