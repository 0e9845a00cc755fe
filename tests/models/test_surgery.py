"""Changes of modules take effect as in plain PyTorch: in both modes, with and without gradients, on every backend.

A longer search: ``EFFKERNELS_SURGERY_EXAMPLES=5000 pytest --timeout 0 tests/models/test_surgery.py``.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from effkernels import EfficientNet
from oracles import oracle

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

from surgery import CHANGE, Halving, Surgery, Wrapper, surgeries
from surgery_comparison import CONFIGURATIONS, check, pair

EXAMPLES_GIVEN = os.environ.get("EFFKERNELS_SURGERY_EXAMPLES")
# A fifth of a second each on an idle core; with compilation, one or two seconds.
MANY = int(EXAMPLES_GIVEN or min(12, settings.default.max_examples))
FEW = max(MANY // 12, 1)


def draws(*, compiled: bool = False) -> st.SearchStrategy[tuple[str, list[Surgery]]]:
    def of(configuration: str) -> st.SearchStrategy[tuple[str, list[Surgery]]]:
        theirs = pair(configuration)[1]
        drawn = st.lists(surgeries(theirs), min_size=0 if compiled else 1, max_size=3)
        if compiled:
            parts = st.lists(surgeries(theirs, compiled=True), min_size=1, max_size=2)
            drawn = st.builds(lambda a, b: a[:1] + b, drawn, parts)
        return st.tuples(st.just(configuration), drawn)

    return st.sampled_from(sorted(CONFIGURATIONS)).flatmap(of)


@given(drawn=draws(), one_op=st.booleans(), look_between=st.booleans())
@settings(max_examples=MANY)
def test_random_surgery(drawn: tuple[str, list[Surgery]], one_op: bool, look_between: bool) -> None:
    check(*drawn, one_op=one_op, look_between=look_between)


@given(drawn=draws(compiled=True), one_op=st.booleans())
@settings(max_examples=FEW)
def test_random_surgery_and_compiled_parts(drawn: tuple[str, list[Surgery]], one_op: bool) -> None:
    torch._dynamo.reset()
    check(*drawn, one_op=one_op, look_between=False)


def both(layer: str, module: Callable[[], nn.Module]) -> Callable[[nn.Module], None]:
    """Replace ``layer`` by a module with the same weights in both networks."""

    def change(model: nn.Module) -> None:
        torch.manual_seed(7)
        model.set_submodule(layer, module().to(next(model.parameters()).dtype))

    return change


class Uncompiled(nn.Module):
    """With the names of ``torch.compile``: the twin computes the same without it, in half of the time."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module

    def forward(self, x: Tensor) -> Tensor:
        return self._orig_mod(x)


def compile_outside(model: nn.Module) -> None:
    stage = model.stages[2]
    ours = isinstance(model, EfficientNet)
    model.stages[2] = torch.compile(stage, backend="eager") if ours else Uncompiled(stage)


def compile_in_place(model: nn.Module) -> None:
    if isinstance(model, EfficientNet):
        model.stages[2].compile(backend="eager")


def append_identity(model: nn.Module) -> None:
    model.stages.append(nn.Identity())


def without_last_stage(model: nn.Module) -> None:
    del model.stages[-1]
    both("head", lambda: nn.Conv2d(8, 24, 1))(model)


def sliced(model: nn.Module) -> None:
    model.stages = model.stages[:2]
    both("head", lambda: nn.Conv2d(8, 24, 1))(model)


def wrapped_stage(model: nn.Module) -> None:
    model.stages[2] = Wrapper(model.stages[2])


def wrapped_conv(model: nn.Module) -> None:
    model.stem.conv = Wrapper(model.stem.conv)


def subclassed_stage(model: nn.Module) -> None:
    model.stages[1] = Halving(*model.stages[1])


def twice_the_same_block(model: nn.Module) -> None:
    model.stages[1].append(model.stages[1][1])


def one_convolution_in_two_layers(model: nn.Module) -> None:
    model.stages[1].append(copy.deepcopy(model.stages[1][1]))
    model.stages[1][2].depthwise.conv = model.stages[1][1].depthwise.conv


def hook_on_stages(model: nn.Module) -> None:
    model.stages.register_forward_hook(lambda _m, _i, y: y * CHANGE)


EXAMPLES: dict[str, Callable[[nn.Module], None]] = {
    "a wrapped stage": wrapped_stage,
    "a stage that is a subclass": subclassed_stage,
    "one more module": append_identity,
    "no stage": both("stages.1", nn.Identity),
    "a compiled stage": compile_outside,
    "a stage compiled in place": compile_in_place,
    "another stem": both("stem", lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())),
    "a wrapped convolution": wrapped_conv,
    "a stem of another width inside": both("stem.conv", lambda: nn.Conv2d(3, 8, 5, 2, 2)),
    "no drop path": both("stages.1.1.drop_path", nn.Identity),
    "a stage less": without_last_stage,
    "some of the stages": sliced,
    "a block twice": twice_the_same_block,
    "one convolution in two layers": one_convolution_in_two_layers,
    "hook on all stages": hook_on_stages,
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_surgery_that_works_on_other_models(example: str) -> None:
    torch._dynamo.reset()
    check("silu", EXAMPLES[example], one_backend="compiled" in example)


@pytest.mark.parametrize("wanted", [1, 6])
def test_stem_of_other_channels(wanted: int) -> None:
    for grouped in (False, True):
        model = copy.deepcopy(pair("silu")[0]).eval()
        model.stem.conv = nn.Conv2d(2 * wanted, 8, 3, 2, 1, groups=2 if grouped else 1)
        assert model.in_channels == 2 * wanted
        assert model(torch.randn(1, 2 * wanted, 32, 32)).shape == (1, 7)
        for run in (model, model.forward_features, model.train()):
            with pytest.raises(ValueError, match=f"must have {2 * wanted} channels, got shape"):
                run(torch.randn(1, 3, 32, 32))


def test_the_input_of_an_unknown_stem_is_not_checked() -> None:
    """It may take any input: here two tensors, of another dtype."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(6, 8, 3, 2, 1)

        def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
            y: Tensor = self.conv(torch.cat(x, 1).float())
            return y

    ours, theirs = (copy.deepcopy(model).eval() for model in pair("silu"))
    for model in (ours, theirs):
        both("stem", Both)(model)
    x = torch.randn(1, 3, 32, 32).double(), torch.randn(1, 3, 32, 32).double()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uint8_images_and_another_stem(dtype: torch.dtype) -> None:
    model = copy.deepcopy(pair("silu")[0]).to(dtype).eval()
    x = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    want = model(x)
    model.stem = nn.Sequential(model.stem)
    torch.testing.assert_close(model(x), want, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="for 3 channels, and these have 4"):
        model(x[:, [0, 1, 2, 0]])
    with pytest.raises(ValueError, match="uint8 images must be"):
        model(x[0])


@pytest.mark.parametrize("training", [False, True])
def test_children_called_one_after_the_other(training: bool) -> None:
    ours, theirs = (copy.deepcopy(model).double().train(training) for model in pair("silu"))
    x = torch.randn(2, 3, 32, 32).double()
    torch.manual_seed(1)
    want = nn.Sequential(*list(theirs.children())[:-2])(x)
    torch.manual_seed(1)
    made = nn.Sequential(*list(ours.children())[:-2])(x)
    torch.testing.assert_close(made, want, rtol=1e-9, atol=1e-9)
    assert isinstance(ours.stages, nn.Sequential)
    assert all(isinstance(stage, nn.Sequential) for stage in ours.stages)


def test_torchvision_can_use_it_as_a_backbone() -> None:
    oracle("torchvision")
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    model = copy.deepcopy(pair("silu")[0]).eval()
    x = torch.randn(1, 3, 64, 64)
    maps = IntermediateLayerGetter(model, {"stem": "fine", "head": "coarse"})(x)
    torch.testing.assert_close(maps["coarse"], model.forward_features(x))
    inner = IntermediateLayerGetter(model.stages, {"0": "a", "2": "b"})(maps["fine"])
    assert [m.shape[1] for m in inner.values()] == [8, 16]
    pyramid = BackboneWithFPN(model, {"stem": "0", "stages": "1"}, [8, 16], 12)(x)
    assert [tuple(m.shape) for m in pyramid.values()][:2] == [(1, 12, 32, 32), (1, 12, 8, 8)]


def replicate(module: nn.Module) -> nn.Module:
    """What DataParallel runs on a device: modules that hold their weights as plain attributes.

    Like ``torch.nn.parallel.replicate``, which needs GPUs.
    """
    modules = list(module.modules())
    replicas = {one: one._replicate_for_data_parallel() for one in modules}
    for one, replica in replicas.items():
        for name, child in one._modules.items():
            if child is None:
                replica._modules[name] = None
            else:
                setattr(replica, name, replicas[child])
        for name, value in one._parameters.items():
            if value is None:
                replica._parameters[name] = None
            else:
                setattr(replica, name, value * 1.0)  # not a leaf
        for name, value in one._buffers.items():
            replica._buffers[name] = None if value is None else value.clone()
    return replicas[module]


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_replicas_of_data_parallel(training: bool, gradients: bool) -> None:
    model = copy.deepcopy(pair("silu")[0]).train(training)
    x = torch.randn(2, 3, 32, 32)
    with torch.set_grad_enabled(gradients):
        replica = replicate(model)
        torch.manual_seed(2)
        made = replica(x)
        torch.manual_seed(2)
        want = model(x)
        torch.testing.assert_close(made, want, rtol=1e-4, atol=1e-4)
        if gradients:
            made.sum().backward()
            assert all(p.grad is not None for p in model.parameters())


def test_parts_of_fused_copies_may_be_compiled() -> None:
    torch._dynamo.reset()
    model, x = copy.deepcopy(pair("silu")[0]).eval(), torch.randn(2, 3, 32, 32)
    want = model(x)
    for made in (model.fuse(), model):
        made.stages[2] = torch.compile(made.stages[2], backend="eager")
        torch.testing.assert_close(made(x), want, rtol=1e-4, atol=1e-4)
    fused = model.fuse()
    torch.testing.assert_close(fused(x), want, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        fused.stages[2]._orig_mod[0].project.conv.weight.zero_()
    torch.testing.assert_close(model(x), want, rtol=1e-4, atol=1e-4)
