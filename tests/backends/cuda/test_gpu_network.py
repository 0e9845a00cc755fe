"""What only a GPU can show of the op for whole networks: launches that overlap, streams, graphs, threads, memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import effkernels
from changes import CHANGES
from effkernels._backends.network_ops import OPS, HeldNetwork
from effkernels.ops._steps import run_by_steps, run_steps
from networks import assert_logits, backbone_of, model_on_gpu, network_of
from specs.style import DTYPES

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("on_the_kernels")]
SWITCH = "EFFKERNELS_DEPENDENT_LAUNCH"


def images(count: int = 2, size: int = 96, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(count, 3, size, size).to(dtype).cuda()


@contextmanager
def launches_apart(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each waits until the one before has ended."""
    with patch.context() as own:
        own.setenv(SWITCH, "0")
        yield


@pytest.mark.parametrize("count", [1, 9, 64])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b4", "efficientnet_lite0"])
def test_it_is_the_same_as_its_steps(
    name: str, dtype: torch.dtype, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, each time, whether launches overlap or not."""
    # Many images are small: in parts, which may be others for a block alone, sums are added in another order.
    model, x = model_on_gpu(name, dtype), images(count, 96 if count < 64 else 32, dtype)
    network, tensors = network_of(model, x)
    features = run_steps(x, network.with_matrices(tensors), network.steps[:-1])
    weight, bias = network.steps[-1].arguments(tensors)
    expected = effkernels.ops.pointwise_conv_bn_act(
        features.to(dtype)[:, :, None, None], weight, bias=bias, activation="identity"
    ).flatten(1)
    held = HeldNetwork(OPS["cuda"], tensors, network)
    for _ in range(20):
        assert torch.equal(held(x), expected)
    with launches_apart(monkeypatch):
        assert torch.equal(held(x), expected)
    assert torch.equal(OPS["cuda"].run(x, tensors, network), expected)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b4"])
def test_many_images_which_may_run_in_parts(name: str) -> None:
    """In parts, sums are added in another order than in the steps; each time the same to the bit."""
    model, x = model_on_gpu(name), images(64)
    network, tensors = network_of(model, x)
    held = HeldNetwork(OPS["cuda"], tensors, network)
    first = held(x)
    with effkernels.use_backend("torch"):
        assert_logits(first, model(x), model, x)
    for _ in range(5):
        assert torch.equal(held(x), first)


@pytest.mark.parametrize("kind", ["the last map", "all maps"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_maps_are_those_of_the_steps(dtype: torch.dtype, kind: str) -> None:
    """Bit for bit, each time; also where tensor maps are kept and the workspace moves."""
    model, x = model_on_gpu("efficientnet_b0", dtype), images(9, dtype=dtype)
    source = model if kind == "the last map" else backbone_of(model.cpu()).to(dtype).cuda()
    network, tensors = network_of(source, x, maps=True)
    expected = run_by_steps(x, tensors, network)
    held, kept = HeldNetwork(OPS["cuda"], tensors, network), []
    for _ in range(5):
        found = held(x)
        assert all(map(torch.equal, found, expected))
        kept += [found, torch.empty(1 << 20, device="cuda")]
    assert all(map(torch.equal, OPS["cuda"].run(x, tensors, network), expected))


def test_launches_overlap_where_the_device_can() -> None:
    model, x = model_on_gpu("efficientnet_b0"), images()
    launches = effkernels.explain(model, x).launches
    capable = torch.cuda.get_device_capability() >= (9, 0)
    assert [launch.dependent for launch in launches] == [False] + [capable] * (len(launches) - 1)


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_held_is_read_anew(change: str) -> None:
    model, x = model_on_gpu("efficientnet_b0"), images()
    network, tensors = network_of(model, x)
    held = HeldNetwork(OPS["cuda"], tensors, network)
    held(x)
    CHANGES[change](model)
    assert torch.equal(held(x), OPS["cuda"].run(x, tensors, network))


def test_weights_are_read_after_what_wrote_them() -> None:
    """The first launch must not overtake a kernel that writes weights: here one that is late."""
    model, x = model_on_gpu("efficientnet_b0"), images(1)
    for _ in range(3):
        model(x)
    weight = model.stem.conv.weight
    for turn in range(5):
        expected_weight = torch.randn_like(weight)
        weight.copy_(expected_weight)
        torch.cuda.synchronize()
        expected = model(x)
        weight.zero_()
        torch.cuda.synchronize()
        torch.cuda._sleep(10_000_000)
        weight.copy_(expected_weight)
        assert torch.equal(model(x), expected), turn


def test_side_streams() -> None:
    model, x = model_on_gpu("efficientnet_b0"), images()
    for _ in range(3):
        expected = model(x)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    torch.cuda._sleep(100_000_000)
    with torch.cuda.stream(side):
        found = model(x).cpu()
        late = torch.cuda.default_stream().query()
    assert not late
    assert torch.equal(found, expected.cpu())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_the_second_device() -> None:
    model, x = model_on_gpu("efficientnet_b0"), images()
    expected = model(x).cpu()
    second = model.to("cuda:1")
    for _ in range(3):
        found = second(x.to("cuda:1"))
    assert found.device.index == 1
    assert torch.cuda.current_device() == 0
    assert torch.equal(found.cpu(), expected)
    network, tensors = network_of(second, x.to("cuda:1"))
    with pytest.raises(RuntimeError, match="all tensors must be on one device"):
        OPS["cuda"].run(x, tensors, network)


def test_threads_share_a_model() -> None:
    """Each on a stream of its own, with images of its own."""
    model = model_on_gpu("efficientnet_b0")
    inputs = [images(1 + i) for i in range(4)]
    for _ in range(3):
        expected = [model(x) for x in inputs]
    torch.cuda.synchronize()
    wrong: list[int] = []

    def work(i: int) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream), torch.no_grad(), effkernels.use_backend("cuda"):
            same = [torch.equal(model(inputs[i]), expected[i]) for _ in range(50)]
            wrong.append(same.count(False))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == [0] * 4


def test_graphs_of_ones_own() -> None:
    """With other operators around."""
    model, x = model_on_gpu("efficientnet_b0"), images()
    for _ in range(3):
        expected = (model(x * 2) + 1).softmax(-1)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = (model(x * 2) + 1).softmax(-1)
    for _ in range(5):
        y.fill_(torch.nan)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(y, expected)
    x.neg_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, (model(x * 2) + 1).softmax(-1))


@pytest.mark.parametrize("count", [1, 8])
def test_graphs_of_models(count: int) -> None:
    model, x = model_on_gpu("efficientnet_b0"), images(count)
    graphed = effkernels.graph(model, x)
    for _ in range(5):
        assert torch.equal(graphed(x), model(x))
    model.head.bn.bias.add_(1.0)
    assert torch.equal(graphed(x), model(x))
    compiled = torch.compile(model, mode="reduce-overhead")
    torch.testing.assert_close(compiled(x), model(x), rtol=2e-2, atol=2e-2)


def test_memory_is_given_back() -> None:
    model, x = model_on_gpu("efficientnet_b0"), images(16, 224)
    for _ in range(3):
        y = model(x)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        y = model(x)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before
    torch.cuda.reset_peak_memory_stats()
    y = model(x)
    ours = torch.cuda.max_memory_allocated() - before
    with effkernels.use_backend("torch"):
        model(x)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        y = model(x)
    eager = torch.cuda.max_memory_allocated() - before
    assert ours < 0.75 * eager
    del y


def test_what_does_not_fit_the_op_runs_as_before() -> None:
    model, x = model_on_gpu("efficientnet_b0"), images()
    expected = model(x)
    handle = model.stages[2].register_forward_hook(lambda *_: None)
    torch.testing.assert_close(model(x), expected, rtol=2e-2, atol=2e-2)
    handle.remove()
    model.classifier = nn.Linear(model.classifier.in_features, 0).bfloat16().cuda()
    assert model(x).shape == (2, 0)
