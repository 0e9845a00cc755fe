"""Whole models in PyTorch's transforms, tracers and exporters."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

import effkernels
from effkernels.models import EfficientNet
from networks import tiny
from processes import run_python
from recorded_ops import recorded
from tiers import slow_unless

OURS = {f"effkernels.{op}.default" for op in ("conv_bn_act", "mbconv", "pointwise_conv_bn_act")}


def symmetric() -> EfficientNet:
    """Three stages, because tracers take a second for each."""
    return tiny(stages=3)


def same() -> EfficientNet:
    """The same with TensorFlow's padding."""
    return tiny(stages=3, padding="same")


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    return symmetric()


@pytest.fixture(params=["auto", "torch"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with effkernels.use_backend(request.param):
        yield request.param


def images(*shape: int) -> Tensor:
    return torch.randn(*shape)


def reference_of(model: EfficientNet, x: Tensor) -> Tensor:
    with effkernels.use_backend("torch"), torch.no_grad():
        return model(x)


def test_a_frozen_model_has_tangents(model: EfficientNet, backend: str) -> None:
    x, direction = images(2, 2, 3, 32, 32)
    step = 1e-2
    with effkernels.use_backend("torch"):
        double = symmetric().double()
        double.load_state_dict(model.state_dict())
        up, down = (double(x.double() + sign * step * direction) for sign in (1, -1))
    want = ((up - down) / (2 * step)).float()
    assert want.abs().max() > 0.0
    _, ours = jvp(model, (x,), (direction,))
    torch.testing.assert_close(ours, want, rtol=1e-2, atol=1e-2 * want.abs().max().item())
    for guard in (torch.no_grad(), torch.enable_grad()):
        with guard, forward_ad.dual_level():
            y = forward_ad.unpack_dual(model(forward_ad.make_dual(x, direction)))
            assert y.tangent is not None
            torch.testing.assert_close(y.tangent, ours)


def test_tangents_of_parameters(model: EfficientNet) -> None:
    x = images(1, 3, 32, 32)
    weight = model.stem.conv.weight

    def run(value: Tensor) -> Tensor:
        return functional_call(model, {"stem.conv.weight": value}, (x,))

    _, ours = jvp(run, (weight,), (torch.randn_like(weight),))
    assert ours.abs().max() > 0.0
    with torch.no_grad():
        torch.testing.assert_close(
            run(weight * 2), functional_call(model, {"stem.conv.weight": weight * 2}, x)
        )
        assert not torch.allclose(run(weight * 2), model(x))


def test_vmap_is_a_batch(model: EfficientNet, backend: str) -> None:
    x = images(3, 3, 32, 32)
    one_by_one = vmap(lambda image: model(image[None])[0])(x)
    torch.testing.assert_close(one_by_one, model(x), rtol=1e-4, atol=1e-5)


def test_gradients_of_each_sample(backend: str) -> None:
    model, x = symmetric().requires_grad_(), images(2, 3, 32, 32)
    parameters = dict(model.named_parameters())

    def loss(values: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, values, (image[None],)).square().sum()

    found = vmap(grad(loss), (None, 0))({k: v.detach() for k, v in parameters.items()}, x)
    for i, image in enumerate(x):
        model.zero_grad()
        model(image[None]).square().sum().backward()
        for name, parameter in parameters.items():
            assert parameter.grad is not None
            torch.testing.assert_close(found[name][i], parameter.grad, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("strict", slow_unless([False], [False, True]))
def test_export_holds_public_ops_and_decomposes(model: EfficientNet, strict: bool) -> None:
    x = images(2, 3, 32, 32)
    program = torch.export.export(model, (x,), strict=strict)
    assert recorded(program.graph) == OURS
    decomposed = program.run_decompositions()
    assert recorded(decomposed.graph) == set()
    for exported in (program, decomposed):
        torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-4, atol=1e-5)


def test_export_on_request_holds_plain_operators(model: EfficientNet) -> None:
    with effkernels.use_backend("torch"):
        assert recorded(torch.export.export(model, (images(1, 3, 32, 32),)).graph) == set()


def test_a_compiled_graph_holds_public_ops(model: EfficientNet) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    x = images(1, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend=keep)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    calls = {str(n.target) for n in graphs[0].graph.nodes if n.op == "call_function"}
    found = recorded(graphs[0].graph)
    assert found == (OURS if effkernels.backends()["cpu"].available else set())
    assert not any("functorch" in call or "tracing" in call for call in calls)


def test_dynamic_height_and_width_with_same_padding() -> None:
    model = tiny(stages=2, padding="same")
    size = torch.export.Dim
    shapes = {0: size("n"), 2: size("h", min=17, max=999), 3: size("w", min=17, max=999)}
    program = torch.export.export(model, (images(2, 3, 40, 40),), dynamic_shapes=(shapes,))
    assert recorded(program.graph) == OURS
    decomposed = program.run_decompositions()
    assert recorded(decomposed.graph) == set()
    for shape in ((1, 3, 41, 38), (3, 3, 40, 47), (2, 3, 17, 64)):
        x = images(*shape)
        for exported in (program, decomposed):
            torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [symmetric, same])
def test_onnx(make: type) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, x = make(), images(2, 3, 40, 33)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    assert program is not None
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_onnx_with_dynamic_height_and_width() -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, size = tiny(stages=2, padding="same"), torch.export.Dim
    shapes = ({0: size("n"), 2: size("h", min=17, max=999), 3: size("w", min=17, max=999)},)
    x = images(2, 3, 40, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, (x,), dynamo=True, verbose=False, dynamic_shapes=shapes)
    assert program is not None
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    for shape in ((1, 3, 41, 38), (3, 3, 40, 47)):
        x = images(*shape)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [symmetric, same])
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
def test_jit_trace_with_gradients_on(make: type) -> None:
    model, x = make().requires_grad_(), images(2, 3, 40, 33)
    traced = torch.jit.trace(model, x)
    assert "effkernels::" not in str(traced.inlined_graph)
    saved = io.BytesIO()
    torch.jit.save(traced, saved)
    saved.seek(0)
    loaded = torch.jit.load(saved)
    # The trace does not fix the sizes of the example.
    for shape in ((2, 3, 40, 33), (1, 3, 51, 38)):
        y = images(*shape)
        torch.testing.assert_close(loaded(y), model(y), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_jit_trace_of_uint8_images(model: EfficientNet) -> None:
    x = torch.randint(256, (1, 3, 33, 32), dtype=torch.uint8)
    model(x)  # PyTorch's check of a trace fails on tensors that only the first pass makes
    traced = torch.jit.trace(model, x)
    torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_jit_script_is_refused_in_one_sentence(model: EfficientNet) -> None:
    for one in (model, torch.nn.Sequential(model)):
        with pytest.raises(NotImplementedError, match=r"use torch\.export\.export"):
            torch.jit.script(one)


@pytest.mark.parametrize("make", [symmetric, same])
def test_symbolic_trace(make: type) -> None:
    model, x = make(), images(2, 3, 40, 33)
    traced = torch.fx.symbolic_trace(model)
    assert "stem.bn" in {node.target for node in traced.graph.nodes}
    torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-5)


def test_feature_extractor_of_torchvision() -> None:
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model, x = same(), images(2, 3, 40, 33)
    extractor = extraction.create_feature_extractor(model, {"stages.1": "early", "head": "late"})
    found = extractor.eval()(x)
    torch.testing.assert_close(found["late"], model.forward_features(x), rtol=1e-4, atol=1e-5)
    assert found["early"].shape[2:] == (10, 9)
    trained = extractor.train()(x)["late"]  # with batch statistics and drop path
    assert not torch.allclose(trained, found["late"])


class Call(torch.nn.Module):
    """One of the public ops, for TorchScript and torch.export."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.ops.effkernels.depthwise_conv_bn_act(
            x, weight, None, None, None, None, None, 0.0, [1, 1], [0, 0, 0, 0], [1, 1], "silu"
        )


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("loader", "named"),
    slow_unless(
        ["jit.load"], [("export.load", "torch.ops.effkernels."), ("jit.load", "effkernels::")]
    ),
)
def test_a_file_with_our_ops_names_them_where_they_are_missing(
    tmp_path: Path, loader: str, named: str
) -> None:
    path = tmp_path / "model.pt2"
    if loader == "jit.load":
        torch.jit.save(torch.jit.script(Call()), path)
    else:
        example = images(1, 4, 5, 5), images(4, 1, 3, 3)
        torch.export.save(torch.export.export(Call(), example), path)
    load = f"torch.{loader}(sys.argv[1])"
    code = (
        f"import sys, torch\ntry:\n    {load}\nexcept Exception as error:\n    print(error)\n"
        "else:\n    sys.exit('it was loaded')\n"
        f"import effkernels\nassert {load}"
    )
    done = run_python("-c", code, str(path))
    assert done.returncode == 0, done.stderr
    assert named in done.stdout + done.stderr  # torch.export logs it
