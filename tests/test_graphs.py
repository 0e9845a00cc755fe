"""CUDA graphs of a forward pass: what is refused and kept without a device, and the results on one."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effkernels
from effkernels import GraphedModel, graphs
from effkernels.nn import ConvBnAct, MBConv
from networks import small


def images(*shape: int, **options: Any) -> Tensor:
    return torch.randn(*(shape or (2, 3, 32, 32)), **options)


def tiny() -> nn.Sequential:
    """A network in training mode, as it is built, with parts that can be replaced."""
    return nn.Sequential(
        OrderedDict(
            stem=ConvBnAct(3, 8, 3, stride=2),
            stages=nn.Sequential(MBConv(8, 8, 3)),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            classifier=nn.Linear(8, 10),
        )
    )


class Recorded:
    """Replaces the graphs of a device: a capture keeps the model, a replay runs it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.log: list[tuple[str, tuple[int, ...]]] = []
        made.append(self)

    def capture(self, model: nn.Module, x: Tensor) -> Any:
        self.log.append(("capture", tuple(x.shape)))
        return model, tuple(x.shape)

    def run(self, captured: Any, x: Tensor, copy: bool) -> Any:
        model, shape = captured
        assert shape == tuple(x.shape)
        self.log.append(("run", shape))
        with torch.no_grad():
            return model(x)

    def release(self, captured: Any) -> None:
        self.log.append(("release", captured[1]))


made: list[Recorded] = []


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """Makes graphs of CPU models by :class:`Recorded`; returns these, one for each time the model was read."""
    monkeypatch.setattr(graphs, "_CudaGraphs", Recorded)
    monkeypatch.setattr(graphs, "_DEVICE_TYPE", "cpu")
    made.clear()
    return made


def captures(recorded: list[Recorded]) -> list[tuple[int, ...]]:
    return [shape for one in recorded for what, shape in one.log if what == "capture"]


A, B, C = (1, 3, 32, 32), (2, 3, 32, 32), (1, 3, 40, 32)


def test_a_shape_is_captured_once(recorded: list[Recorded]) -> None:
    model = tiny().eval()
    graphed = effkernels.graph(model, images(*A))
    assert captures(recorded) == [A]
    for shape in (A, B, A, B):
        x = images(*shape)
        torch.testing.assert_close(graphed(x), model(x))
    assert captures(recorded) == [A, B]
    assert graphed.shapes == [A, B]
    assert len(recorded) == 1


def test_the_least_recently_used_goes(recorded: list[Recorded]) -> None:
    graphed = effkernels.graph(tiny().eval(), images(*A), max_shapes=2)
    for shape in (B, A, C):
        graphed(images(*shape))
    assert graphed.shapes == [A, C]
    assert [entry for entry in recorded[0].log if entry[0] != "run"] == [
        ("capture", A),
        ("capture", B),
        ("release", B),  # before the next capture, which can use its memory
        ("capture", C),
    ]


def test_functions_of_a_check(recorded: list[Recorded], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a replay of B0, all but the replay itself: however many modules there are."""
    if not effkernels.unchanged.can_tell():
        pytest.skip("no compiled code")
    model, x = effkernels.efficientnet_b0().eval(), images(*A)
    graphed = effkernels.graph(model, x)
    monkeypatch.setattr(Recorded, "run", lambda *_: x)
    graphed(x)
    functions: list[str] = []

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            functions.append(frame.f_code.co_name if event == "call" else argument.__name__)

    sys.setprofile(profile)
    try:
        graphed(x)
    finally:
        sys.setprofile(None)
    # The C functions of one `map` over the tensors are not among them.
    assert len(functions) <= 40, functions
    assert captures(recorded) == [A]


def test_release(recorded: list[Recorded]) -> None:
    graphed = effkernels.graph(tiny().eval(), images(*A))
    graphed(images(*B))
    graphed.release()
    assert sorted(shape for what, shape in recorded[0].log if what == "release") == [A, B]
    assert graphed.shapes == []
    graphed.release()
    graphed(images(*B))
    assert captures(recorded) == [A, B, B]


def test_settings_that_decide_about_kernels_have_their_own_graphs(recorded: list[Recorded]) -> None:
    graphed = effkernels.graph(tiny().eval(), images(*A))
    with effkernels.use_backend("torch"):
        graphed(images(*A))
        graphed(images(*A))
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            graphed(images(*A))
    graphed(images(*A))
    assert captures(recorded) == [A] * 4


def _data(model: nn.Module) -> None:
    model.stem.conv.weight.data = model.stem.conv.weight.data.clone()


def _parameter(model: nn.Module) -> None:
    model.stem.conv.weight = nn.Parameter(torch.randn_like(model.stem.conv.weight))


def _buffer(model: nn.Module) -> None:
    model.stem.bn.running_mean = torch.zeros_like(model.stem.bn.running_mean)


def _module(model: nn.Module) -> None:
    model.classifier = nn.Identity().eval()


def _deeper_module(model: nn.Module) -> None:
    model.stages.append(nn.Tanh().eval())


def _none(model: nn.Module) -> None:
    model.classifier.bias = None


@pytest.mark.parametrize("change", [_data, _parameter, _buffer, _module, _deeper_module, _none])
def test_replacing_something_captures_again(change: Any, recorded: list[Recorded]) -> None:
    model = tiny().eval()
    graphed = effkernels.graph(model, images(*A))
    graphed(images(*B))
    change(model)
    graphed(images(*A))
    assert captures(recorded) == [A, B, A]
    assert {shape for what, shape in recorded[0].log if what == "release"} == {A, B}
    graphed(images(*A))
    assert len(captures(recorded)) == 3


def test_a_fused_copy_is_captured(recorded: list[Recorded]) -> None:
    """The identities in place of its BatchNorms are in training mode, which does not matter."""
    fused, x = small().eval().fuse(), images(*A)
    graphed = effkernels.graph(fused, x)
    torch.testing.assert_close(graphed(x), fused(x))
    fused.stages[0][0].drop_path.train()
    with pytest.raises(
        ValueError, match=r"stages\.0\.0\.drop_path of the model is in training mode"
    ):
        graphed(images(*A))


def test_writing_in_place_does_not_capture_again(recorded: list[Recorded]) -> None:
    model = tiny().eval()
    graphed = effkernels.graph(model, images(*A))
    model.load_state_dict(tiny().state_dict())
    with torch.no_grad():
        model.classifier.weight.zero_()
    graphed(images(*A))
    assert captures(recorded) == [A]


def test_uint8_images(recorded: list[Recorded]) -> None:
    model, x = small().eval(), torch.randint(256, A, dtype=torch.uint8)
    graphed = effkernels.graph(model, x)
    torch.testing.assert_close(graphed(x), model(x))
    graphed(images(*A))
    graphed(x)
    assert captures(recorded) == [A, A]


def test_threads_take_turns(recorded: list[Recorded]) -> None:
    graphed = effkernels.graph(tiny().eval(), images(*A))
    threads = [threading.Thread(target=graphed, args=(images(*B),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert captures(recorded) == [A, B]
    assert len(recorded[0].log) == 2 + 1 + 8


def test_a_failing_capture_keeps_nothing(
    recorded: list[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    graphed = effkernels.graph(tiny().eval(), images(*A))

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Recorded, "capture", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            graphed(images(*B))
    assert graphed.shapes == [A]
    graphed(images(*B))
    assert graphed.shapes == [A, B]


@pytest.mark.parametrize(
    ("x", "error", "said"),
    [
        ([1.0], TypeError, "input must be a tensor, got list"),
        (torch.ones(3, 8, 8), ValueError, "input must be (N, C, H, W), got shape (3, 8, 8)"),
        (
            torch.ones(1, 3, 8, 8).int(),
            TypeError,
            "input must be floating point or uint8, got torch.int32",
        ),
        (torch.ones(1, 3, 8, 8, device="meta"), ValueError, "input is on meta, model on cpu"),
        (torch.ones(1, 3, 8, 8, requires_grad=True), ValueError, "input requires grad"),
        (torch.ones(0, 3, 8, 8), ValueError, "input has no images, got shape (0, 3, 8, 8)"),
    ],
)
def test_bad_inputs(x: Any, error: type[Exception], said: str, recorded: list[Recorded]) -> None:
    model = tiny().eval()
    with pytest.raises(error) as caught:
        effkernels.graph(model, x)
    assert str(caught.value).startswith(f"graph: {said}")
    assert captures(recorded) == []
    graphed = effkernels.graph(model, images(*A))
    with pytest.raises(error) as caught:
        graphed(x)
    assert str(caught.value).startswith(f"graph: {said}")
    assert captures(recorded) == [A]


def test_training_mode(recorded: list[Recorded]) -> None:
    model = tiny()
    with pytest.raises(ValueError, match=r"graph: model is in training mode: call model\.eval"):
        effkernels.graph(model, images(*A))
    graphed = effkernels.graph(model.eval(), images(*A))
    model.stages[0].depthwise.bn.train()
    inner = r"graph: stages\.0\.depthwise\.bn of the model is in training mode"
    with pytest.raises(ValueError, match=inner):
        graphed(images(*A))
    model.eval()
    graphed(images(*A))
    assert captures(recorded) == [A]


def test_hooks(recorded: list[Recorded]) -> None:
    model = tiny().eval()
    graphed = effkernels.graph(model, images(*A))
    on_all = nn.modules.module.register_module_forward_hook
    for register in (model.stem.bn.register_forward_pre_hook, on_all):
        handle = register(lambda *_: None)
        try:
            for call in (lambda: graphed(images(*A)), lambda: effkernels.graph(model, images(*A))):
                with pytest.raises(ValueError, match="graph: model has hooks"):
                    call()
        finally:
            handle.remove()
    graphed(images(*A))
    assert captures(recorded) == [A]


@pytest.mark.parametrize("max_shapes", [0, -1, True, 2.0, None])
def test_bad_limits(max_shapes: Any, recorded: list[Recorded]) -> None:
    with pytest.raises(ValueError, match="max_shapes must be an int, at least 1, got"):
        effkernels.graph(tiny().eval(), images(*A), max_shapes=max_shapes)
    assert not recorded


def test_models_that_leave_the_device(recorded: list[Recorded]) -> None:
    model = tiny().eval()
    graphed = effkernels.graph(model, images(*A))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.to("meta")
    for _ in range(2):
        with pytest.raises(ValueError, match="graph: model is on meta; CUDA graphs need all of it"):
            graphed(images(*A))
    assert graphed.shapes == []
    model.to_empty(device="cpu").load_state_dict(weights)
    graphed(images(*A))
    assert captures(recorded) == [A, A]


def test_models_on_other_devices() -> None:
    with pytest.raises(ValueError, match="graph: model is on cpu; CUDA graphs need all of it on"):
        effkernels.graph(tiny().eval(), images())
    with pytest.raises(ValueError, match="graph: model is on no device, without parameters"):
        effkernels.graph(nn.ReLU().eval(), images())
    mixed = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1, device="meta")).eval()
    with pytest.raises(ValueError, match="graph: model is on cpu and meta"):
        effkernels.graph(mixed, images())
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got function"):
        effkernels.graph(images, images())


@pytest.mark.parametrize("output", [{"y": torch.ones(1)}, [torch.ones(1), None], 1.0])
def test_results_that_are_not_tensors(output: Any) -> None:
    with pytest.raises(TypeError, match="graph: model must return a tensor, or a list or tuple"):
        graphs._check_output(output)


@pytest.mark.parametrize("kind", [list, tuple])
def test_results_are_copied(kind: type) -> None:
    output = kind(images(2, 3).requires_grad_(False) for _ in range(2))
    copied = graphs._cloned(output)
    assert type(copied) is kind
    for ours, theirs in zip(copied, output, strict=True):
        assert ours.data_ptr() != theirs.data_ptr()
        assert torch.equal(ours, theirs)


@pytest.fixture
def model() -> Iterator[effkernels.EfficientNet]:
    """A network on the device, with some hundred kernels."""
    yield small().cuda().eval()
    torch.cuda.synchronize()


def assert_replays(graphed: GraphedModel, model: nn.Module, *shapes: tuple[int, ...]) -> None:
    """Replays on new values give the model's results for them."""
    for shape in shapes:
        for _ in range(3):
            x = images(*shape, device="cuda")
            with torch.inference_mode():
                # NHWC, as in the graph, because algorithms are chosen by layout.
                expected = model(x.contiguous(memory_format=torch.channels_last))
            torch.testing.assert_close(graphed(x), expected)


@pytest.mark.gpu
def test_replays_equal_the_model(model: effkernels.EfficientNet) -> None:
    graphed = effkernels.graph(model, images(*A, device="cuda"), max_shapes=2)
    assert_replays(graphed, model, A, B, A, C, B)
    graphed.release()
    assert_replays(graphed, model, B)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_and_autocast(model: effkernels.EfficientNet, dtype: torch.dtype) -> None:
    x = images(*B, device="cuda")
    nhwc = x.contiguous(memory_format=torch.channels_last)
    graphed = effkernels.graph(model, x)
    with torch.autocast("cuda", dtype):
        cast = graphed(x)
        with torch.inference_mode():
            torch.testing.assert_close(cast, model(nhwc))
        assert cast.dtype == dtype
    with torch.inference_mode():
        torch.testing.assert_close(graphed(x), model(nhwc))
    model.to(dtype)  # other memory, so it is captured again
    with torch.inference_mode():
        torch.testing.assert_close(graphed(x.to(dtype)), model(nhwc.to(dtype)))


@pytest.mark.gpu
def test_replays_of_uint8_images(model: effkernels.EfficientNet) -> None:
    first, second = (torch.randint(256, B, dtype=torch.uint8, device="cuda") for _ in "ab")
    graphed = effkernels.graph(model, first)
    for x in (second, first):
        with torch.inference_mode():
            expected = model(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(graphed(x), expected)
    assert graphed.shapes == [B]


@pytest.mark.gpu
def test_writes_in_place_are_seen(model: effkernels.EfficientNet) -> None:
    graphed = effkernels.graph(model, images(*A, device="cuda"))
    captured = dict(graphed._captured)
    x = images(*A, device="cuda")
    before = graphed(x)
    model.load_state_dict(small().state_dict())
    with torch.no_grad():
        model.stages[3][1].depthwise.bn.running_mean.add_(0.5)
    assert_replays(graphed, model, A)
    assert not torch.allclose(graphed(x), before)
    assert list(map(id, graphed._captured.values())) == list(map(id, captured.values()))


@pytest.mark.gpu
def test_replaced_parameters_are_seen(model: effkernels.EfficientNet) -> None:
    graphed = effkernels.graph(model, images(*A, device="cuda"))
    model.classifier.weight.data = torch.randn_like(model.classifier.weight)
    model.stem.conv.weight = nn.Parameter(torch.randn_like(model.stem.conv.weight))
    assert_replays(graphed, model, A)


@pytest.mark.gpu
def test_fresh_results_stay(model: effkernels.EfficientNet) -> None:
    graphed = effkernels.graph(model, images(*A, device="cuda"))
    results = [graphed(images(*shape, device="cuda")) for shape in (A, B, A, B)]
    kept = [result.clone() for result in results]
    for shape in (A, B, C):
        graphed(images(*shape, device="cuda"))
    graphed.release()
    for result, copy in zip(results, kept, strict=True):
        assert torch.equal(result, copy)
        assert not result.requires_grad


@pytest.mark.gpu
def test_the_graphs_own_result(model: effkernels.EfficientNet) -> None:
    x = images(*A, device="cuda")
    graphed = effkernels.graph(model, x, copy=False)
    first = graphed(x)
    expected = first.clone()
    second = graphed(images(*A, device="cuda"))
    assert second.data_ptr() == first.data_ptr()
    assert not torch.equal(first, expected)
    assert torch.equal(graphed(x), expected)


@pytest.mark.gpu
def test_feature_maps() -> None:
    model = effkernels.create_model("efficientnet_b0", features_only=True).cuda().eval()
    x = images(*A, device="cuda")
    maps = effkernels.graph(model, x)(x)
    assert isinstance(maps, list)
    with torch.inference_mode():
        expected = model(x.contiguous(memory_format=torch.channels_last))
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.stride() == theirs.stride()


@pytest.mark.gpu
def test_modes_and_streams_may_change_between_calls(model: effkernels.EfficientNet) -> None:
    with torch.inference_mode():
        graphed = effkernels.graph(model, images(*A, device="cuda"))
        inside = images(*A, device="cuda")
    expected = {}
    with torch.inference_mode():
        expected[0] = model(inside.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(graphed(inside), expected[0])
    assert not graphed(images(*A, device="cuda")).is_inference()
    streams = [torch.cuda.Stream() for _ in range(3)]
    xs = [images(*shape, device="cuda") for shape in (A, B, A) * 4]
    with torch.inference_mode():
        wanted = [model(x.contiguous(memory_format=torch.channels_last)) for x in xs]
    torch.cuda.synchronize()
    found = []
    for i, x in enumerate(xs):
        with torch.cuda.stream(streams[i % 3]):
            found.append(graphed(x))
    torch.cuda.synchronize()
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.gpu
def test_release_frees_memory(model: effkernels.EfficientNet) -> None:
    x = images(8, 3, 128, 128, device="cuda")
    graphed = effkernels.graph(model, x)
    held, released = [], []
    for _ in range(3):
        graphed(x)
        held.append(torch.cuda.memory_allocated())
        graphed.release()
        released.append(torch.cuda.memory_allocated())
    # The difference includes what libraries allocated for the stream of the captures.
    assert len(set(released)) == 1
    assert min(held) >= released[0] + x.nbytes


@pytest.mark.gpu
def test_it_refuses_a_model_that_left_the_device(model: effkernels.EfficientNet) -> None:
    x = images(*A, device="cuda")
    graphed = effkernels.graph(model, x)
    with pytest.raises(ValueError, match="graph: input is on cpu, model on cuda:0: move one"):
        graphed(x.cpu())
    model.cpu()
    with pytest.raises(ValueError, match="graph: model is on cpu; CUDA graphs need"):
        graphed(x)
    assert_replays(graphed, model.cuda(), A)
