"""The cpu backend within the package: opcheck, compilation, gradients, fallback, bounds checks of its
bindings.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import effkernels
from cpu_kernels import in_float64, instruction_set, poisoned, tensors, usable_instruction_sets
from effkernels import dispatch, nn, ops
from fallbacks import fallbacks
from randomise import randomise
from specs.mbconv import Block
from specs.oracle_convolutions import OracleConvolutions
from specs.samples import labels, samples
from specs.tolerance import assert_within_eager
from tiers import slow_unless

# All ops except those that this backend composes of others.
COMPOSED = ("expand_depthwise", "pointwise_conv_bn_act_squeeze")
LABELS = [label for label in labels() if not label.startswith(COMPOSED)]
FIRST = {label.split("-")[0]: label for label in reversed(LABELS)}.values()
CPU = torch.ops.effkernels_cpu


def sample(label: str, dtype: torch.dtype = torch.float32) -> Any:
    return samples(dtype)[labels().index(label)]


def private(name: str) -> Any:
    return getattr(CPU, name).default


@pytest.mark.parametrize(
    ("label", "dtype"),
    [*((label, torch.float32) for label in LABELS), *((label, torch.bfloat16) for label in FIRST)],
    ids=str,
)
def test_opcheck(label: str, dtype: torch.dtype) -> None:
    case = sample(label, dtype)
    flat = [
        a.contiguous(memory_format=torch.channels_last)
        if isinstance(a, Tensor) and a.dim() == 4 and i != 1
        else a
        for i, a in enumerate(case.flat)
    ]
    utils = (
        "test_schema",
        "test_autograd_registration",
        "test_faketensor",
        "test_aot_dispatch_dynamic",
    )
    torch.library.opcheck(private(case.name), tuple(flat), test_utils=utils)


@pytest.mark.parametrize("label", LABELS)
def test_it_runs_every_sample_itself(label: str) -> None:
    case = sample(label)
    assert dispatch.choose(case.name, "cpu", case.flat) is private(case.name)
    with effkernels.use_backend("torch"):
        expected = tensors(case.front())
    with effkernels.use_backend("cpu", fallback=False):
        actual = tensors(case.front())
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_every_op_has_kernels() -> None:
    status = effkernels.backends()["cpu"]
    assert status.available
    assert set(status.ops) >= {sample(label).name for label in LABELS}


BLOCK = Block(2, 12, 48, 12, (10, 11), squeezed=4, residual=True)


def test_compiled_block_is_the_eager_one(seed: int) -> None:
    torch._dynamo.reset()
    torch.manual_seed(seed)
    model = randomise(effkernels.efficientnet_b0(num_classes=10)).eval().requires_grad_(False)
    layer = next(m for m in model.modules() if isinstance(m, nn.MBConv) and m.residual)
    x = torch.randn(2, 24, 12, 13)
    with effkernels.use_backend("cpu", fallback=False):
        torch.testing.assert_close(
            torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x)
        )


@pytest.mark.parametrize("label", LABELS)
def test_gradients_are_the_references(label: str) -> None:
    found = []
    case = sample(label)
    for backend in ("cpu", "torch"):
        flat = [a.detach().clone() if isinstance(a, Tensor) else a for a in case.flat]
        names = [a.name for a in private(case.name)._schema.arguments]
        wanted = [
            a.requires_grad_()
            for a, name in zip(flat, names, strict=True)
            if isinstance(a, Tensor) and a.is_floating_point() and "running" not in name
        ]
        with effkernels.use_backend(backend):
            results = tensors(getattr(torch.ops.effkernels, case.name)(*flat))
        torch.manual_seed(0)
        value = sum((r * torch.randn(r.shape)).sum() for r in results)
        found.append(torch.autograd.grad(value, wanted))
    assert len(found[0]) > 2
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_float64_falls_back_with_one_line_for_each_op(
    recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_warned", set())
    arguments = in_float64(BLOCK.arguments())
    for _ in range(3):
        y = ops.mbconv(**arguments)
    assert y.dtype == torch.float64
    lines = fallbacks(recwarn)
    # The ops that the block is composed of.
    assert lines[0] == (
        "pointwise_conv_bn_act: not on the cpu backend: it computes float32, bfloat16 and float16, "
        "not torch.float64"
    )
    assert len(lines) == len({line.split(":")[0] for line in lines}) == 3
    refused = pytest.raises(NotImplementedError, match=r"not torch\.float64")
    with effkernels.use_backend("cpu", fallback=False), refused:
        ops.mbconv(**arguments)


def test_kernels_with_too_many_rows_fall_back() -> None:
    x, weight = torch.randn(1, 3, 70, 2), torch.randn(3, 1, 65, 1)
    refused = pytest.raises(NotImplementedError, match="at most 64 rows")
    with effkernels.use_backend("cpu", fallback=False), refused:
        ops.depthwise_conv_bn_act(x, weight)
    with effkernels.use_backend("torch"):
        expected = ops.depthwise_conv_bn_act(x, weight)
    torch.testing.assert_close(ops.depthwise_conv_bn_act(x, weight), expected)


def test_gates_without_hidden_channels() -> None:
    gate = ops.Gate(torch.randn(0, 12), None, torch.randn(12, 0), torch.randn(12))
    arguments = {**BLOCK.arguments(), "expand": None, "gate": gate}
    arguments["depthwise"] = ops.Conv(torch.randn(12, 1, 3, 3))
    arguments["project"] = ops.Conv(torch.randn(12, 12))
    with effkernels.use_backend("torch"):
        expected = ops.mbconv(**arguments)
    torch.testing.assert_close(ops.mbconv(**arguments), expected, rtol=1e-4, atol=1e-4)
    layer = ops.squeeze_excite(arguments["x"], *gate)
    torch.testing.assert_close(layer, arguments["x"] * gate[3].sigmoid()[:, None, None])


NHWC = torch.randn(2, 6, 8, 8).contiguous(memory_format=torch.channels_last)
DEPTHWISE_WEIGHT = torch.randn(6, 1, 3, 3)
NO_BN = (None, None, None, None, None, 0.0)
WINDOW = ([1, 1], [1] * 4, [1, 1], "silu")


def pointwise(x: Tensor = NHWC, weight: Any = None, gate: Any = None, added: Any = None) -> Any:
    weight = torch.randn(5, 6) if weight is None else weight
    return CPU.pointwise_conv_bn_act(x, weight, *NO_BN, gate, added, "silu")


def depthwise(
    x: Tensor = NHWC, weight: Tensor = DEPTHWISE_WEIGHT, norm: Any = NO_BN, window: Any = WINDOW
) -> Any:
    return CPU.depthwise_conv_bn_act(x, weight, *norm, *window)


@pytest.mark.parametrize("label", LABELS)
def test_private_ops_take_maps_of_any_strides(label: str) -> None:
    case = sample(label)
    op = private(case.name)
    maps = [i for i, a in enumerate(case.flat) if isinstance(a, Tensor) and a.dim() == 4]
    nhwc = list(case.flat)
    for i in maps:
        nhwc[i] = nhwc[i].contiguous(memory_format=torch.channels_last)
    expected = tensors(op(*nhwc))
    for strided in (
        lambda t: t.contiguous(),
        lambda t: torch.stack((t, t + 1), -1)[..., 0],
        lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        flat = [strided(a) if i in maps else a for i, a in enumerate(case.flat)]
        for ours, same in zip(tensors(op(*flat)), expected, strict=True):
            assert torch.equal(ours, same)
            assert ours.stride() == same.stride()


# Arguments that the Python functions would refuse, given to the private ops: nothing may be accessed out
# of bounds.
MISUSES: dict[str, tuple[str, Callable[[], Any]]] = {
    "three dimensions": ("4 dimensions", lambda: pointwise(NHWC[0])),
    "no channels": ("out of range", lambda: pointwise(NHWC[:, :0], torch.randn(5, 0))),
    "doubles": ("must be float32, bfloat16", lambda: pointwise(NHWC.double())),
    "weights of another type": ("type of x", lambda: depthwise(weight=DEPTHWISE_WEIGHT.half())),
    "few weights": ("wrong number of elements", lambda: pointwise(weight=torch.randn(5, 5))),
    "few channels": ("wrong number of elements", lambda: depthwise(weight=DEPTHWISE_WEIGHT[:5])),
    "short bias": (
        "wrong number of elements",
        lambda: depthwise(norm=(torch.ones(5), *NO_BN[1:])),
    ),
    "half a norm": (
        "both running mean and variance",
        lambda: depthwise(norm=(None, None, None, torch.ones(6), None, 0.1)),
    ),
    "short gate": ("wrong number of elements", lambda: pointwise(gate=torch.ones(1, 6))),
    "gate of halves": ("type of x", lambda: pointwise(gate=torch.ones(2, 6).half())),
    "residual": ("residual must have the shape", lambda: pointwise(added=NHWC)),
    "stride": ("must be positive", lambda: depthwise(window=([0, 1], *WINDOW[1:]))),
    "padding": (
        "padding is out of range",
        lambda: depthwise(window=([1, 1], [-1, 1, 1, 1], *WINDOW[2:])),
    ),
    "no output": (
        "does not fit",
        lambda: depthwise(window=([1, 1], [0] * 4, [9, 9], "silu")),
    ),
    "many rows": (
        "kernel is empty or too large",
        lambda: depthwise(weight=torch.randn(6, 1, 65, 1)),
    ),
    "activation": ("unknown activation", lambda: depthwise(window=(*WINDOW[:3], "gelu"))),
    "dense channels": (
        "must have the channels of x",
        lambda: CPU.conv_bn_act(NHWC, torch.randn(5, 7, 3, 3), *NO_BN, *WINDOW, None, None),
    ),
}


@pytest.mark.parametrize("name", MISUSES)
def test_bindings_refuse_what_would_be_out_of_bounds(name: str) -> None:
    message, misuse = MISUSES[name]
    with pytest.raises(RuntimeError, match=f"effkernels_cpu::.*{message}"):
        misuse()


@pytest.mark.parametrize(
    ("name", "dtype"),
    slow_unless(
        [("efficientnet_b0", torch.float32), ("efficientnet_lite0", torch.bfloat16)],
        itertools.product(
            ["efficientnet_b0", "efficientnet_lite0"], [torch.float32, torch.bfloat16]
        ),
    ),
    ids=str,
)
def test_whole_networks(name: str, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    model = randomise(effkernels.create_model(name, num_classes=1000)).eval().requires_grad_(False)
    model, x = model.to(dtype), torch.randn(3, 3, 65, 50).to(dtype)
    with effkernels.use_backend("torch"), OracleConvolutions():
        eager = model(x)
        exact = copy.deepcopy(model).double()(x.double())
    for isa in usable_instruction_sets():
        with instruction_set(isa), poisoned(), effkernels.use_backend("cpu"):
            actual = model(x)
        assert_within_eager(actual, eager, exact)
