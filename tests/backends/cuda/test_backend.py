"""The backend in its place: what it rejects and says, its backstops; no GPU needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import unset_fake_temporarily

import effkernels
from cuda_kernels import LABELS
from effkernels import dispatch, ops
from effkernels._backends import limits
from effkernels._backends.compiled import compiled_status
from effkernels.ops._schema import ConvNorm, Norm
from effkernels.ops._steps import NETWORK, run_by_steps
from effkernels.ops._window import WindowArguments
from effkernels.ops.conv_bn_act import ConvArguments
from effkernels.ops.mbconv import MbconvArguments
from effkernels.ops.pointwise_conv_bn_act import PointwiseArguments, PointwisePoolArguments
from effkernels.ops.squeeze_excite_gate import GateArguments
from fakes import Calls, fake_pass
from fallbacks import fallbacks
from host_shim import HostShim, ShimError
from networks import network_of, tiny
from parity import Runner, to_device
from specs.samples import labels, samples

needs_module = pytest.mark.skipif(
    compiled_status()["cuda"] is not None, reason=f"no _C_cuda: {compiled_status()['cuda']}"
)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """CUDA tensors without data, and the backend as it is beside a GPU of compute capability 9.0."""
    monkeypatch.setattr(limits, "capability", lambda _: (9, 0))
    monkeypatch.setattr(dispatch._BACKENDS["cuda"], "unavailable", None)
    monkeypatch.setattr(dispatch, "_warned", set())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


@needs_module
def test_it_says_why_it_is_not_available() -> None:
    status = effkernels.backends()["cuda"]
    assert status.available == (torch.cuda.device_count() > 0)
    if not status.available:
        assert status.reason == "there is no CUDA device"
        with pytest.raises(ValueError, match="there is no CUDA device"):
            effkernels.use_backend("cuda")


@needs_module
@pytest.mark.parametrize("label", LABELS)
def test_it_takes_cuda_tensors(pretended: FakeTensorMode, label: str) -> None:
    case = samples(torch.float16)[labels().index(label)]
    flat = to_device(case.flat, "cuda:0")
    kernel = dispatch.choose(case.name, "cuda", flat)
    assert kernel is getattr(torch.ops.effkernels_cuda, case.name).default
    first = kernel(*flat)
    first = first[0] if isinstance(first, tuple) else first
    assert first.device == torch.device("cuda:0")
    assert first.dim() == 2 or first.is_contiguous(memory_format=torch.channels_last)


def ours(calls: Calls) -> dict[str, int]:
    return {name: n for name, n in calls.counts.items() if name.startswith("effkernels")}


# One network in every type: how a type chooses between kernels is the same for all of them.
NETWORKS = [
    *(("efficientnet_b0", dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)),
    ("efficientnet_b5", torch.bfloat16),
    ("efficientnet_lite0", torch.bfloat16),
]


@needs_module
@pytest.mark.parametrize(("name", "dtype"), NETWORKS, ids=str)
def test_networks_in_eval_mode_run_on_them(
    pretended: FakeTensorMode, name: str, dtype: torch.dtype, recwarn: pytest.WarningsRecorder
) -> None:
    """The stem, a call a block, and the head."""
    model, logits, calls = fake_pass(name, dtype)
    assert logits.device.type == "cuda"
    assert ours(calls) == {
        "effkernels_cuda.conv_bn_act": 1,
        "effkernels_cuda.mbconv": sum(len(stage) for stage in model.stages),
        "effkernels_cuda.pointwise_conv_bn_act": 1,
    }
    assert fallbacks(recwarn) == []


@needs_module
def test_nothing_of_a_network_is_left_to_triton_or_pytorch(pretended: FakeTensorMode) -> None:
    """But for the classifier; and, module by module, for the mean behind the head."""
    _, _, calls = fake_pass("efficientnet_b5", torch.bfloat16)
    others = {name for name in calls.counts if not name.startswith("effkernels_cuda.")}
    copies = {"aten.empty_strided", "aten.clone"}  # of the image, to NHWC
    assert others == {"aten.addmm", "aten.t", "aten.mean.dim", "aten.view", "prim.device", *copies}


@needs_module
@pytest.mark.parametrize("classes", [0, 10])
def test_the_steps_of_a_classifier_are_one_call(
    pretended: FakeTensorMode, classes: int, recwarn: pytest.WarningsRecorder
) -> None:
    """Of real tensors, which a plan needs; what it calls is given tensors of a GPU that is not there."""
    with unset_fake_temporarily():
        model = tiny()
        model.reset_classifier(classes)
        network, real = network_of(model, torch.randn(2, 3, 33, 40))
    x, *tensors = to_device((torch.empty(2, 3, 33, 40), *real), "cuda:0")
    kernel = dispatch.choose(NETWORK, "cuda", (x, tensors, network), composite=True)
    assert kernel is not None
    with torch.no_grad(), Calls() as calls:
        y = kernel(x, tensors, network)
    assert ours(calls) == {"effkernels_cuda.network": 1}
    assert y.shape == (2, classes or model.head.conv.out_channels)
    assert y.device == torch.device("cuda:0")
    # Without a first step that they take, each step chooses for itself.
    tensors[0] = torch.empty(tensors[0].shape[0], 3, 70, 3, device="cuda:0")
    refused = dispatch.choose(NETWORK, "cuda", (x, tensors, network), composite=True)
    assert refused is run_by_steps
    assert fallbacks(recwarn) == []


NO_NORM = Norm(None, None, None, None, None, 0.0)


def block(x: Tensor, wide: int, out: int, *, hidden: int = 4) -> MbconvArguments:
    """A 3x3 one, gated, of the dtype of ``x``."""

    def conv(*shape: int) -> ConvNorm:
        return ConvNorm(torch.ones(shape, dtype=x.dtype, device=x.device), *NO_NORM)

    gate = (conv(hidden, wide).weight, None, conv(wide, hidden).weight, None)
    parts = (*conv(wide, x.shape[1]), *conv(wide, 1, 3, 3), *gate, *conv(out, wide))
    return MbconvArguments(x, *parts, (1, 1), (1, 1, 1, 1), residual=False, activation="silu")


@needs_module
def test_uint8_images_are_read_by_the_stem(pretended: FakeTensorMode) -> None:
    _, logits, calls = fake_pass("efficientnet_b0", torch.bfloat16, uint8=True)
    assert (logits.device.type, logits.dtype) == ("cuda", torch.bfloat16)
    assert calls.counts["effkernels_cuda.conv_bn_act"] == 1
    assert not calls.counts["aten.sub.Tensor"]


def window(x: Tensor, weight: Tensor) -> WindowArguments:
    return WindowArguments(x, weight, *NO_NORM, (1, 1), (1, 1, 1, 1), (1, 1), "silu")


def pointwise(x: Tensor, weight: Tensor, **others: Tensor) -> PointwiseArguments:
    plain = PointwiseArguments(x, weight, *NO_NORM, gate=None, residual=None, activation="silu")
    return plain._replace(**others)


def dense(x: Tensor, weight: Tensor, mean: Any = None, std: Any = None) -> ConvArguments:
    return ConvArguments(*window(x, weight), mean=mean, std=std)


def gate(x: Tensor, hidden: int) -> GateArguments:
    weight = torch.empty(hidden, x.shape[1], dtype=x.dtype)
    return GateArguments(x, weight, None, weight.t(), None, "silu")


X = torch.empty(2, 32, 8, 8, dtype=torch.float16)
REJECTED: dict[str, tuple[str, tuple[Any, ...], str]] = {
    "float64": (
        "depthwise_conv_bn_act",
        window(X.double(), torch.empty(32, 1, 3, 3).double()),
        "computes float32, bfloat16 and float16, not torch.float64",
    ),
    "rows": (
        "depthwise_conv_bn_act_pool",
        window(torch.empty(2, 32, 80, 8), torch.empty(32, 1, 65, 1)),
        "at most 64 rows",
    ),
    "terms": (
        "conv_bn_act",
        dense(X, torch.empty(8, 32, 3, 3).half()),
        "sums at most 256 terms, not 288",
    ),
    "hidden of a block": (
        "mbconv",
        block(X, 32, 16, hidden=12289),
        "at most 12288 hidden channels, not 12289",
    ),
    "hidden": ("squeeze_excite", gate(X, 12289), "at most 12288 hidden channels, not 12289"),
    "pooled": (
        "squeeze_excite_gate",
        gate(torch.empty(2, 32).half(), 4),
        "computes gates from float32, not torch.float16",
    ),
    "gate": (
        "pointwise_conv_bn_act",
        pointwise(X, torch.empty(8, 32).half(), gate=torch.empty(2, 32).half()),
        "takes gates of float32, not torch.float16",
    ),
}


@needs_module
@pytest.mark.parametrize("name", REJECTED)
def test_what_it_rejects_goes_to_the_reference_with_one_line(
    pretended: FakeTensorMode, name: str, recwarn: pytest.WarningsRecorder
) -> None:
    op, flat, reason = REJECTED[name]
    for _ in range(2):
        assert dispatch.choose(op, "cuda", to_device(flat, "cuda:0")) is None
    (line,) = fallbacks(recwarn)
    assert line.startswith(f"{op}: not on the cuda backend: ")
    assert reason in line


@needs_module
def test_old_gpus_are_rejected(
    pretended: FakeTensorMode, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(limits, "capability", lambda _: (7, 5))
    flat = to_device(window(X, torch.empty(32, 1, 3, 3).half()), "cuda:0")
    assert dispatch.choose("depthwise_conv_bn_act", "cuda", flat) is None
    (line,) = fallbacks(recwarn)
    assert "GPU 0 has compute capability 7.5; 8.0 or newer is needed" in line


def test_the_shim_has_the_same_limits(shim: HostShim) -> None:
    assert tuple(shim.call("private", "limits", ())) == limits.of_module("cuda")


@needs_module
def test_limits_have_names() -> None:
    schema = torch.ops.effkernels_cuda.limits.default._schema
    names = [value.name for value in schema.returns]
    assert names == list(limits.KernelLimits._fields)
    assert all(limit > 0 for limit in torch.ops.effkernels_cuda.limits())


NHWC = torch.randn(2, 6, 8, 8).contiguous(memory_format=torch.channels_last)
DEPTHWISE = torch.randn(6, 1, 3, 3)


GATE = GateArguments(torch.randn(2, 6), torch.randn(3, 6), None, torch.randn(6, 3), None, "silu")
BLOCK = block(NHWC, 12, 5)
# What the front would not let through, given to the private ops: they must not read or write out of bounds.
MISUSES: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "three dimensions": ("depthwise_conv_bn_act", "4 dimensions", window(NHWC[0], DEPTHWISE)),
    "no channels": ("depthwise_conv_bn_act", "out of range", window(NHWC[:, :0], DEPTHWISE[:0])),
    "doubles": ("depthwise_conv_bn_act", "must be float32", window(NHWC.double(), DEPTHWISE)),
    "another type": ("depthwise_conv_bn_act_pool", "type of x", window(NHWC, DEPTHWISE.half())),
    "few weights": ("depthwise_conv_bn_act", "wrong number", window(NHWC, DEPTHWISE[:5])),
    "short bias": (
        "depthwise_conv_bn_act",
        "wrong number",
        window(NHWC, DEPTHWISE)._replace(bias=torch.ones(5)),
    ),
    "half a norm": (
        "depthwise_conv_bn_act",
        "both running mean and variance",
        window(NHWC, DEPTHWISE)._replace(running_mean=torch.ones(6)),
    ),
    "stride": (
        "depthwise_conv_bn_act",
        "must be positive",
        window(NHWC, DEPTHWISE)._replace(stride=(0, 1)),
    ),
    "padding": (
        "depthwise_conv_bn_act",
        "padding is out of range",
        window(NHWC, DEPTHWISE)._replace(padding=(-1, 1, 1, 1)),
    ),
    "no output": (
        "depthwise_conv_bn_act",
        "does not fit",
        window(NHWC, DEPTHWISE)._replace(padding=(0, 0, 0, 0), dilation=(9, 9)),
    ),
    "activation": (
        "depthwise_conv_bn_act",
        "unknown activation",
        window(NHWC, DEPTHWISE)._replace(activation="gelu"),
    ),
    "dense channels": (
        "conv_bn_act",
        "must have the channels of x",
        dense(NHWC, torch.randn(5, 7, 3, 3)),
    ),
    "dense dimensions": ("conv_bn_act", "4 dimensions", dense(NHWC[0], DEPTHWISE)),
    "means alone": (
        "conv_bn_act",
        "both mean and std",
        dense(NHWC.byte(), torch.randn(5, 6, 3, 3), torch.ones(6)),
    ),
    "few deviations": (
        "conv_bn_act",
        "wrong number",
        dense(NHWC.byte(), torch.randn(5, 6, 3, 3), torch.ones(6), torch.ones(5)),
    ),
    "bytes of a depthwise one": (
        "depthwise_conv_bn_act",
        "float32",
        window(NHWC.byte(), DEPTHWISE),
    ),
    "many terms": (
        "conv_bn_act",
        "too many terms",
        dense(NHWC, torch.randn(5, 6, 7, 7)),
    ),
    "few expand weights": (
        "mbconv",
        "wrong number",
        BLOCK._replace(expand_weight=torch.randn(12, 4)),
    ),
    "expand weights of halves": (
        "mbconv",
        "type of x",
        BLOCK._replace(expand_weight=torch.randn(12, 6).half()),
    ),
    "short expand bias": ("mbconv", "wrong number", BLOCK._replace(expand_bias=torch.ones(11))),
    "few expanded": (
        "mbconv",
        "wrong number",
        BLOCK._replace(depthwise_weight=torch.randn(11, 1, 3, 3)),
    ),
    "no expand": (
        "mbconv",
        "must have the channels of x",
        BLOCK._replace(expand_weight=None),
    ),
    "half a gate": (
        "mbconv",
        "squeeze-excitation needs both weights",
        BLOCK._replace(se_expand_weight=None),
    ),
    "few gates of a block": (
        "mbconv",
        "wrong number",
        BLOCK._replace(se_reduce_weight=torch.randn(4, 11)),
    ),
    "few projected": ("mbconv", "wrong number", BLOCK._replace(project_weight=torch.randn(5, 11))),
    "residual of another shape": (
        "mbconv",
        "residual needs a result with x's shape",
        BLOCK._replace(residual=True),
    ),
    "hidden channels of a block": (
        "mbconv",
        "too many hidden channels",
        block(NHWC, 12, 5, hidden=12289),
    ),
    "few weights of a matrix": (
        "pointwise_conv_bn_act",
        "wrong number",
        pointwise(NHWC, torch.randn(5, 4)),
    ),
    "no output channels": (
        "pointwise_conv_bn_act",
        "0 output channels are out of range",
        pointwise(NHWC, torch.randn(0, 6)),
    ),
    "few gates": (
        "pointwise_conv_bn_act",
        "wrong number",
        pointwise(NHWC, torch.randn(5, 6), gate=torch.ones(1, 6)),
    ),
    "gates of halves": (
        "pointwise_conv_bn_act",
        "type of x",
        pointwise(NHWC, torch.randn(5, 6), gate=torch.ones(2, 6).half()),
    ),
    "small residual": (
        "pointwise_conv_bn_act",
        "residual must have the shape and type",
        pointwise(NHWC, torch.randn(5, 6), residual=torch.ones(2, 5, 8, 7)),
    ),
    "residual of halves": (
        "pointwise_conv_bn_act",
        "residual must have the shape and type",
        pointwise(NHWC, torch.randn(5, 6), residual=torch.ones(2, 5, 8, 8).half()),
    ),
    "weights of another type to be pooled": (
        "pointwise_conv_bn_act_pool",
        "type of x",
        PointwisePoolArguments(NHWC, torch.randn(5, 6).half(), *NO_NORM, "silu"),
    ),
    "short bias of a squeeze": (
        "pointwise_conv_bn_act_squeeze",
        "wrong number",
        PointwisePoolArguments(NHWC, torch.randn(5, 6), *NO_NORM, "silu")._replace(
            bias=torch.ones(4)
        ),
    ),
    "gate of a map": ("squeeze_excite_gate", "must be a matrix", GATE._replace(pooled=NHWC)),
    "short expand": (
        "squeeze_excite_gate",
        "wrong number",
        GATE._replace(expand_weight=torch.randn(5, 3)),
    ),
    "half means": (
        "squeeze_excite_gate",
        "type of x",
        GATE._replace(pooled=torch.ones(2, 6).half()),
    ),
    "hidden": (
        "squeeze_excite",
        "too many hidden",
        GATE._replace(
            pooled=NHWC, reduce_weight=torch.empty(12289, 6), expand_weight=torch.empty(6, 12289)
        ),
    ),
}


@pytest.mark.parametrize("name", MISUSES)
def test_bindings_refuse_what_would_be_out_of_bounds(runner: Runner, name: str) -> None:
    op, message, flat = MISUSES[name]
    with pytest.raises((RuntimeError, ShimError), match=f"effkernels_cuda::{op}: .*{message}"):
        runner.private(op, flat)


@pytest.mark.gpu
def test_tensors_on_several_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="weight is on cpu, x on cuda"):
        ops.depthwise_conv_bn_act(NHWC.cuda(), DEPTHWISE)
    private = torch.ops.effkernels_cuda.depthwise_conv_bn_act
    with pytest.raises(RuntimeError, match="all tensors must be on one device"):
        private(*window(NHWC.cuda(), DEPTHWISE))
