"""From ``model(x)`` to the network's op: how little Python runs, and that it still notices everything."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
import time
import types
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import effkernels
from effkernels import EfficientNet
from effkernels._backends.network_ops import OPS, HeldNetwork
from effkernels.models import inference
from networks import small_copy

pytestmark = pytest.mark.skipif(
    not effkernels.backends()["cpu"].available, reason="the cpu backend is not built"
)
X = torch.randn(2, 3, 40, 33, generator=torch.Generator().manual_seed(3))
BOUND = 3  # calls, from which on the next ones are given no tensors but the images


@pytest.fixture(autouse=True)
def _same_weights_each_time() -> None:
    """How much a change matters depends on them: it must be more than rounding."""
    torch.manual_seed(7)


@contextmanager
def noted() -> Iterator[tuple[list[Any], list[Any]]]:
    """The arguments of the networks' op: those of calls with a number, and with all tensors."""
    held, explicit = [], []
    by_number, op = HeldNetwork.__call__, torch.ops.effkernels_cpu.network
    given = op.default

    def call(self: HeldNetwork, *arguments: Any) -> Tensor:
        held.append(arguments)
        return by_number(self, *arguments)

    def run(*arguments: Any) -> Tensor:
        explicit.append(arguments)
        return given(*arguments)

    with mock.patch.object(HeldNetwork, "__call__", call), mock.patch.object(op, "default", run):
        yield held, explicit


def bound(model: EfficientNet, x: Tensor = X) -> Tensor:
    """Call a model until its plan is bound; the logits."""
    with torch.no_grad():
        for _ in range(BOUND):
            y = model(x)
    watch = inference._plans[model]._watch
    assert watch is not None
    assert watch.ready
    return y


def layer_by_layer(model: EfficientNet, x: Tensor = X) -> Tensor:
    with torch.no_grad():
        return model.forward_head(model._last_map(x))


def counted(call: Callable[[], Any]) -> tuple[Counter[str], Counter[str]]:
    """The functions that run in a call: of Python, and of C as far as Python calls them."""
    python: Counter[str] = Counter()
    compiled: Counter[str] = Counter()

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            python[f"{frame.f_code.co_filename}:{frame.f_code.co_name}"] += 1
        elif event == "c_call":
            compiled[getattr(argument, "__qualname__", str(argument))] += 1

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return python, compiled


@pytest.mark.parametrize("options", [{}, {"num_classes": 0}], ids=["logits", "features"])
@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode])
def test_functions_and_tensors_of_a_forward(grad: Any, options: dict[str, int]) -> None:
    """However many layers there are; PyTorch's own functions are counted too."""
    model = effkernels.efficientnet_b0(**options).eval()
    x = torch.randn(1, 3, 32, 32)
    bound(model, x)
    with grad():
        python, compiled = counted(lambda: model(x))
        with noted() as (held, explicit):
            model(x)
    # The counts of today, for logits and for features without a classifier.
    assert python.total() <= (28 if not options else 32), python
    assert compiled.total() <= (40 if not options else 46), compiled
    assert [len(arguments) for arguments in held] == [1]
    assert not explicit


@pytest.mark.parametrize("change", ["hook", "module", "class", "dropout", "cast"])
@torch.no_grad()
def test_what_follows_the_features_is_seen(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing does, no module is called; and it is noticed when something does."""
    model = small_copy(num_classes=0).eval()
    before = bound(model)
    twice: Callable[[Any, Tensor], Tensor] = lambda _, y: y * 2  # noqa: E731
    if change == "hook":
        model.classifier.register_forward_hook(lambda _m, _i, y: y * 2)
    elif change == "module":
        model.classifier = nn.Tanh()
    elif change == "class":
        monkeypatch.setattr(nn.Identity, "forward", twice)
    elif change == "dropout":
        model.dropout.p = 1.0
        model.dropout.train()
    else:
        model.to(torch.bfloat16)
    x = X.bfloat16() if change == "cast" else X
    for _ in range(BOUND + 1):
        after = model(x)
        assert after.dtype == x.dtype
        if change != "cast":  # whose numbers have a tolerance of their own
            torch.testing.assert_close(after, layer_by_layer(model, x), rtol=1e-3, atol=1e-3)
            assert not torch.allclose(after, before, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_functions_of_a_backbone() -> None:
    model = effkernels.create_model("efficientnet_b0", features_only=True).eval()
    x = torch.randn(1, 3, 32, 32)
    for _ in range(BOUND):
        model(x)
    python, compiled = counted(lambda: model(x))
    assert python.total() <= 30, python
    assert compiled.total() <= 40, compiled
    classifier = effkernels.efficientnet_b0().eval()
    for _ in range(BOUND):
        classifier.forward_features(x)
    python, compiled = counted(lambda: classifier.forward_features(x))
    assert python.total() <= 30, python
    assert compiled.total() <= 40, compiled


@torch.inference_mode()
def test_time_of_a_forward_without_kernels() -> None:
    """Far more than it takes: no batch, so no kernel runs. Machines that are busy take longer: the least counts."""
    model, x = effkernels.efficientnet_b0().eval(), torch.randn(0, 3, 32, 32)
    bound(model, x)
    least = float("inf")
    for _ in range(50):
        start = time.perf_counter()
        model(x)
        least = min(least, time.perf_counter() - start)
    assert least < 1e-3


def test_images_of_one_size_share_what_is_held() -> None:
    model = small_copy().eval()
    for images in (1, 2, 3):
        bound(model, torch.randn(images, 3, 32, 32))
    bound(model, torch.randn(1, 3, 40, 32))
    watch = inference._plans[model]._watch
    assert watch is not None
    assert (len(watch.ready), len(watch.bound)) == (4, 2)


def _reversed(t: Tensor) -> Tensor:
    return t.flip(0).contiguous()


def _same_memory(model: EfficientNet) -> None:
    """Other data that begins where the other began, and has as many elements."""
    weight = model.stages[1][0].project.conv.weight
    channels, wide = weight.shape[:2]
    weight.data = weight.data.as_strided(weight.shape, (1, channels, 1, 1))
    assert weight.shape == (channels, wide, 1, 1)


def _assigned(model: EfficientNet) -> None:
    state = {name: _reversed(value) for name, value in model.state_dict().items() if value.dim()}
    model.load_state_dict(state, strict=False, assign=True)


def _assigned_to_a_part(model: EfficientNet) -> None:
    part = model.stages[1]
    state = {name: _reversed(value) for name, value in part.state_dict().items() if value.dim()}
    part.load_state_dict(state, strict=False, assign=True)


def _buffer(model: EfficientNet) -> None:
    bn = model.stages[2][0].project.bn
    bn.running_mean = _reversed(bn.running_mean) + 1


def _in_a_dictionary(model: EfficientNet) -> None:
    conv = model.stages[2][0].project.conv
    conv._parameters["weight"] = nn.Parameter(_reversed(conv.weight.detach()))


def _another_dictionary(model: EfficientNet) -> None:
    conv = model.stages[2][0].project.conv
    conv._parameters = {**conv._parameters, "weight": nn.Parameter(_reversed(conv.weight.detach()))}


def _other_attributes(model: EfficientNet) -> None:
    bn = model.stages[2][0].project.bn
    bn.__dict__ = {**bn.__dict__, "eps": 0.7}


def _other_class(model: EfficientNet) -> None:
    model.head.act.__class__ = nn.ReLU
    model.head.act.inplace = False


def _smuggled_hook(model: EfficientNet) -> None:
    model.stages[1]._forward_hooks[12345] = lambda _m, _i, y: y * 0.5


def _smuggled_dictionary_of_hooks(model: EfficientNet) -> None:
    model.stages[1]._forward_pre_hooks = OrderedDict({1: lambda _m, i: (i[0] * -3,)})


def _method(model: EfficientNet) -> None:
    def twice(self: EfficientNet, x: Tensor, pre_logits: bool = False) -> Tensor:
        return EfficientNet.forward_head(self, x, pre_logits) * 2

    del model.fused  # as many attributes as before
    model.forward_head = types.MethodType(twice, model)  # type: ignore[method-assign]


CHANGES: dict[str, Callable[[EfficientNet], None]] = {
    f.__name__[1:]: f
    for f in (
        *(_same_memory, _assigned, _assigned_to_a_part, _buffer, _in_a_dictionary),
        *(_another_dictionary, _other_attributes, _other_class),
        *(_smuggled_hook, _smuggled_dictionary_of_hooks, _method),
    )
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_behind_a_bound_plan_is_seen(change: str) -> None:
    model = small_copy(num_classes=50).eval()
    before = bound(model)
    CHANGES[change](model)
    for _ in range(BOUND + 1):
        with torch.no_grad():
            after = model(X)
        torch.testing.assert_close(after, layer_by_layer(model), rtol=1e-3, atol=1e-3)
        assert not torch.allclose(after, before, rtol=1e-3, atol=1e-3)


def test_a_tensor_of_another_class_is_seen() -> None:
    class Mine(nn.Parameter):
        pass

    model = small_copy().eval()
    expected = bound(model)
    model.stages[2][0].project.conv.weight.__class__ = Mine
    with noted() as (held, explicit), torch.no_grad():
        torch.testing.assert_close(model(X), expected, rtol=1e-3, atol=1e-3)
        assert not held
        assert not explicit


@pytest.mark.parametrize("name", ["forward", "_conv_forward", "__call__"])
def test_a_patched_class_is_seen(name: str) -> None:
    model = small_copy(num_classes=50).eval()
    before = bound(model)
    original = getattr(nn.Conv2d, name)

    def patched(self: nn.Module, *arguments: Any) -> Any:
        return original(self, *arguments) * 1.2

    with mock.patch.object(nn.Conv2d, name, patched), noted() as (held, explicit), torch.no_grad():
        after = model(X)
        assert not held
        assert not explicit
    assert not torch.allclose(after, before, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(bound(model), before)


def test_a_patched_method_of_the_network_is_seen() -> None:
    model = small_copy(num_classes=50).eval()
    before = bound(model)
    original = EfficientNet.forward_head
    patched = lambda self, x, pre_logits=False: original(self, x, pre_logits) * 2  # noqa: E731
    with mock.patch.object(EfficientNet, "forward_head", patched), torch.no_grad():
        torch.testing.assert_close(model(X), before * 2, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(bound(model), before)


def test_a_hook_for_all_modules_is_seen() -> None:
    model, seen = small_copy().eval(), []
    bound(model)
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(type(m)))
    try:
        with torch.no_grad():
            model(X)
    finally:
        handle.remove()
    assert nn.Conv2d in seen


def test_what_does_not_matter_keeps_the_plan() -> None:
    model = small_copy().eval()
    model.note = model.stages[1].note = "mine"
    bound(model)
    plan = inference._plans[model]
    model.stages[1].note = "another"
    with noted() as (held, explicit), torch.no_grad():
        for _ in range(4):
            model(X)
        assert (len(explicit), len(held)) == (2, 2)
        model.note = "another"  # at its door nobody asks
        model(X)
        assert len(held) == 3
        assert len(explicit) == 2
    assert inference._plans[model] is plan


def test_gradients_end_the_shortcut() -> None:
    model = small_copy().eval().requires_grad_(False)
    bound(model)
    model(X)  # nothing wants a gradient
    x = X.clone().requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None
    model.stages[1][0].project.bn.weight.requires_grad_()
    model(X).sum().backward()
    assert model.stages[1][0].project.bn.weight.grad is not None


def test_modes_of_pytorch_see_the_tensors() -> None:
    """A number would mean nothing to what counts, records or fakes operators."""

    class Seen(TorchDispatchMode):
        sees_effkernels_ops = True

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func.namespace == "effkernels_cpu":
                calls.append((func.overloadpacket.__name__, args))
            return func(*args, **(kwargs or {}))

    calls: list[Any] = []
    model = small_copy().eval()
    expected = bound(model)
    with torch.no_grad(), Seen():  # type: ignore[no-untyped-call]
        torch.testing.assert_close(model(X), expected)
    assert [name for name, _ in calls] == ["network"]
    assert len(calls[0][1][1]) > 100
    with torch.no_grad():
        with FlopCounterMode(display=False) as whole:
            model(X)
        with FlopCounterMode(display=False) as layers:
            layer_by_layer(model)
    assert whole.get_total_flops() == layers.get_total_flops() > 0


def test_autocast_and_other_backends_end_the_shortcut() -> None:
    model = small_copy().eval()
    bound(model)
    with noted() as (held, _), torch.no_grad():
        with effkernels.use_backend("torch"):
            model(X)
        with torch.autocast("cpu", torch.bfloat16):
            assert model(X).dtype == torch.bfloat16
        model.double()(X.double())
        assert not held


def test_errors_are_those_of_the_first_call() -> None:
    model = small_copy().eval()
    bound(model)
    for x, said in ((X[0], r"must be \(N, C, H, W\)"), (X[:, :2], "must have 3 channels")):
        with pytest.raises(ValueError, match=said):
            model(x)
    with pytest.raises(TypeError, match="float64"):
        model(X.double())


def test_tensors_that_come_and_go_are_not_held() -> None:
    """As ``torch.func.functional_call`` brings them: other weights for a call, then the own ones."""
    model = small_copy(num_classes=50).eval()
    expected = bound(model)
    others = {name: value.detach() * 1.25 for name, value in model.named_parameters()}
    wanted = layer_by_layer(copy.deepcopy(model))
    torch.testing.assert_close(expected, wanted, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        for _ in range(4):
            other = torch.func.functional_call(model, others, (X,))
            assert not torch.allclose(other, expected, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(model(X), expected)
        with noted() as (held, _):
            torch.func.functional_call(model, others, (X,))
            model(X)
        assert not held


@pytest.mark.parametrize("way", ["to", "load_state_dict"])
def test_tensors_can_be_swapped(way: str) -> None:
    """Which PyTorch does only where nobody else holds them."""
    model = small_copy(num_classes=50).eval()
    bound(model)
    state = {name: _reversed(value) for name, value in model.state_dict().items() if value.dim()}
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        if way == "to":
            model.to(torch.bfloat16).to(torch.float32)
        else:
            model.load_state_dict(state, strict=False)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    torch.testing.assert_close(bound(model), layer_by_layer(model), rtol=1e-3, atol=1e-3)


def test_where_tensors_may_be_swapped_none_are_held() -> None:
    model = small_copy(num_classes=50).eval()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with noted() as (held, _), torch.no_grad():
            for _ in range(BOUND + 1):
                before = model(X)
            assert not held
            model.stages[2].to(torch.bfloat16).to(torch.float32)
            after = model(X)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, layer_by_layer(model), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("assign", [False, True])
def test_replaced_weights_are_freed(assign: bool) -> None:
    model = small_copy().eval()
    bound(model)
    old = weakref.ref(model.stem.conv.weight)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=assign)
    gc.collect()
    assert (old() is None) == assign


def test_what_is_held_goes_with_the_model() -> None:
    model = small_copy().eval()
    bound(model)
    watch = inference._plans[model]._watch
    assert watch is not None
    (network,) = watch.bound.values()
    assert isinstance(network, HeldNetwork)
    number, weight = network.holder.number, weakref.ref(model.stem.conv.weight)
    assert number in OPS["cpu"].held
    del model, watch, network
    gc.collect()
    assert weight() is None
    assert number not in OPS["cpu"].held
    with pytest.raises(RuntimeError, match=f"no tensors are held by the number {number}"):
        torch.ops.effkernels_cpu.network_held(X, number)


def test_copies_are_bound_to_their_own_tensors() -> None:
    model = small_copy(num_classes=50).eval()
    expected = bound(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model)):
        assert other not in inference._plans
        torch.testing.assert_close(bound(other), expected)
    others = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for other in others:
        bound(other)
        with torch.no_grad():
            other.classifier.weight.zero_()
            assert not torch.allclose(other(X), expected)
            torch.testing.assert_close(model(X), expected)


def test_threads_share_a_model_whose_weights_are_replaced() -> None:
    """Each result is that of the one or the other weights, and afterwards of the last."""
    model = small_copy(num_classes=50).eval()
    conv = model.stages[1][0].project.conv
    weights = [conv.weight, nn.Parameter(-conv.weight.detach())]
    expected = []
    for weight in weights:
        conv.weight = weight
        expected.append(layer_by_layer(model))
    stop, wrong, done = threading.Event(), [], Counter[int]()

    def work(index: int) -> None:
        with torch.no_grad():
            while not stop.is_set() or not done[index]:
                y = model(X)
                if not any(torch.allclose(y, want, rtol=1e-3, atol=1e-3) for want in expected):
                    wrong.append(y)
                done[index] += 1

    workers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    for turn in range(40):
        conv.weight = weights[turn % 2]
        time.sleep(0.005 * (turn % 3))
    stop.set()
    for worker in workers:
        worker.join()
    assert not wrong
    torch.testing.assert_close(bound(model), expected[1], rtol=1e-3, atol=1e-3)


def test_plans_without_compiled_code_look_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effkernels.unchanged, "_compiled", None)
    model = small_copy(num_classes=50).eval()
    with torch.no_grad(), noted() as (held, explicit):
        for _ in range(4):
            before = model(X)
        assert not held
        assert len(explicit) == 4
        plan = inference._plans[model]
        assert plan._watch is None
        assert not plan._last  # keeps no tensor
        _buffer(model)
        after = model(X)
    torch.testing.assert_close(after, layer_by_layer(model), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(after, before, rtol=1e-3, atol=1e-3)
