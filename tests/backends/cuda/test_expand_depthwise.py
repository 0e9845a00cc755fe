"""Expand and depthwise in one kernel: each of its configurations, where it is chosen, and where NaN goes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import effkernels
from cuda_kernels import Shim, channels_apart, expanding_in_one_kernel, variable
from effkernels import EfficientNet, ops, use_backend
from effkernels.analysis.cost import model_cost
from effkernels.analysis.memory import inference_memory
from effkernels.models import EfficientNetConfig, build, get_config
from effkernels.models.config import EFFICIENTNET_STAGES
from effkernels.models.scaling import Coefficients
from host_shim import HostShim
from networks import assert_logits
from parity import Runner, check
from randomise import randomise
from specs.expand_depthwise_conv_bn_act import (
    EDGES,
    IN_ONE_KERNEL,
    Expand,
    generate_for_one_kernel,
)
from specs.generators import cases
from specs.oracle_convolutions import OracleConvolutions
from specs.style import DTYPES

HALVES = (torch.bfloat16, torch.float16)
OP = "expand_depthwise_conv_bn_act"


@pytest.fixture
def in_one(runner: Runner) -> Iterator[Runner]:
    with expanding_in_one_kernel(runner):
        yield runner


def parts(shim: HostShim, case: Expand) -> int:
    """Partial sums of an image in one kernel; 0 if there are two."""
    window = (case.kernel, case.stride, case.padding[0])
    return int(
        shim.call(
            "expand_depthwise_parts", case.n, case.channels, case.expanded, *case.size, *window
        )
    )


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", IN_ONE_KERNEL)
def test_paths(in_one: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    case = IN_ONE_KERNEL[name]
    if isinstance(in_one, Shim):
        assert parts(in_one.shim, case) > 0
    check(in_one, case.styled(dtype=dtype, seed=seed))


@settings(max_examples=30)
@given(case=cases(generate_for_one_kernel))
def test_any(runner: Runner, case: Expand) -> None:
    apart = channels_apart(runner) if case.style.strange else nullcontext()
    with expanding_in_one_kernel(runner), apart:
        check(runner, case)


@pytest.mark.parametrize("multiprocessors", [1, 5, 40])
def test_shares_of_blocks(runner: Runner, multiprocessors: int, seed: int) -> None:
    """That begin and end within images, are several images, and are one step each."""
    with expanding_in_one_kernel(runner, multiprocessors):
        for name in ("24, 3x3", "24, 5x5/2"):
            check(runner, IN_ONE_KERNEL[name].styled(dtype=torch.float16, seed=seed))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", EDGES)
def test_two_kernels(runner: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    case = EDGES[name].styled(dtype=dtype, seed=seed)
    with channels_apart(runner) if case.style.strange else nullcontext():
        check(runner, case)


@contextmanager
def h100(shim: HostShim) -> Iterator[None]:
    shim.call("device", 132, 227 * 1024)
    try:
        yield
    finally:
        shim.call("device")


def expanding_blocks(model: str) -> list[tuple[int, int, int, int, int]]:
    """Channels of x, expanded channels, size, kernel and stride of the distinct blocks, in their order."""
    layers = model_cost(model, get_config(model).resolution).layers
    found: dict[tuple[int, int, int, int, int], None] = {}
    for first, second in itertools.pairwise(layers):
        if first.kind == "expand":
            channels, size, _ = first.in_shape
            expanded = first.out_shape[0]
            found[channels, expanded, size, second.kernel_size, second.stride] = None
    return list(found)


# Where an H100 was measured to be faster with one kernel than with two, and what lies between.
CHOSEN = {
    ("efficientnet_b0", 128): [
        (16, 96, 112, 3, 2),
        (24, 144, 56, 3, 1),
        (24, 144, 56, 5, 2),
    ],
    ("efficientnet_b4", 64): [
        (24, 144, 190, 3, 2),
        (32, 192, 95, 3, 1),
        (32, 192, 95, 5, 2),
    ],
    ("efficientnet_b5", 64): [
        (24, 144, 228, 3, 2),
        (40, 240, 114, 3, 1),
        (40, 240, 114, 5, 2),
    ],
    ("efficientnet_b7", 32): [(32, 192, 300, 3, 2)],
    # From ten steps of a block on.
    ("efficientnet_b0", 63): [
        (16, 96, 112, 3, 2),
        (24, 144, 56, 3, 1),
        (24, 144, 56, 5, 2),
    ],
    ("efficientnet_b0", 62): [(16, 96, 112, 3, 2)],
    ("efficientnet_b0", 24): [(16, 96, 112, 3, 2)],
    ("efficientnet_b0", 23): [],
    ("efficientnet_b0", 1): [],
}


@pytest.mark.parametrize(("model", "images"), CHOSEN)
def test_chosen_on_an_h100(shim: HostShim, model: str, images: int) -> None:
    with h100(shim):
        chosen = [
            (channels, expanded, size, kernel, stride)
            for channels, expanded, size, kernel, stride in expanding_blocks(model)
            if parts(
                shim,
                Expand(images, channels, expanded, (size,) * 2, kernel, stride, (kernel // 2,) * 4),
            )
        ]
    assert chosen == CHOSEN[model, images]


def test_not_chosen_elsewhere(shim: HostShim) -> None:
    case = Expand(128, 16, 96, (112, 112), 3, 2)
    runner = Shim(shim)
    with h100(shim):
        assert parts(shim, case) > 0
        with variable(runner, "EFFKERNELS_EXPAND_DEPTHWISE", "two"):
            assert parts(shim, case) == 0
        with channels_apart(runner):
            assert parts(shim, case) == 0
        shim.call("tensor_memory", False)
        try:
            assert parts(shim, case) == 0
        finally:
            shim.call("tensor_memory", True)
        shim.call("device", 132, 99 * 1024)
        assert parts(shim, case) == 0
    with expanding_in_one_kernel(runner):
        for other in (
            Expand(1, 20, 48, (8, 8)),
            Expand(1, 24, 72, (8, 8)),
            Expand(1, 24, 48, (8, 8), 5, 1, padding=(2,) * 4),
            Expand(1, 24, 48, (8, 1)),
        ):
            assert parts(shim, other) == 0


def test_weights_that_are_not_aligned(in_one: Runner, seed: int) -> None:
    """Views of which elements begin at odd places."""
    arguments = IN_ONE_KERNEL["24, 3x3"].styled(dtype=torch.float16, seed=seed).arguments()
    expected = in_one(OP, arguments)
    expand = arguments["expand"]
    weight = torch.empty(expand.weight.numel() + 1, dtype=torch.float16)[1:]
    weight = weight.view_as(expand.weight).copy_(expand.weight)
    found = in_one(OP, arguments | {"expand": expand._replace(weight=weight)})
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


ROW, COLUMN = 9, 7


def run_strange(runner: Runner, value: float) -> Tensor:
    """Of two images, where the first one's 24 channels are infinite, or NaN, in one pixel."""
    x = torch.ones(2, 24, 13, 12).half()
    x[0, :, ROW, COLUMN] = value
    expand = ops.Conv(torch.rand(48, 24).half())
    depthwise = ops.Conv(torch.rand(48, 1, 3, 3).half() + 0.5)
    arguments = {"x": x, "expand": expand, "depthwise": depthwise, "padding": 1}
    return runner(OP, arguments | {"activation": "identity"})[0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
def test_nan_and_infinity_spread_to_the_patches_over_them(in_one: Runner, value: float) -> None:
    """Patches of 2x4 results, with windows of 4x8: two columns more than these results lie over."""
    y = run_strange(in_one, value)
    window = torch.zeros(13, 12, dtype=torch.bool)
    window[ROW - 1 : ROW + 2, COLUMN - 1 : COLUMN + 2] = True
    strange = ~y.isfinite()
    assert torch.equal(strange[0], strange[0, :1].expand(48, -1, -1))
    assert (strange[0, 0] | ~window).all()
    patches = torch.zeros(13, 12, dtype=torch.bool)
    patches[8:12, 4:12] = True
    assert not (strange[0, 0] & ~patches).any()
    assert not strange[1].any()
    if value == torch.inf:
        assert torch.equal(y[0, 0] == torch.inf, window)


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
def test_they_do_not_where_channels_are_kept_apart(in_one: Runner, value: float) -> None:
    with channels_apart(in_one):
        strange = ~run_strange(in_one, value).isfinite()
    assert strange[0, 0].sum() == 9
    assert not strange[1].any()


def first_stages(dtype: torch.dtype) -> EfficientNet:
    """The blocks of B0 that have a kernel for both convolutions, and those before and between."""
    config = EfficientNetConfig(
        "first stages",
        Coefficients(1.0, 1.0, 64, 0.2),
        EFFICIENTNET_STAGES[:3],
        stem_channels=32,
        head_channels=128,
    )
    model = randomise(build(config, num_classes=10)).eval().requires_grad_(False)
    return model.to(dtype)


IN_ONE = "expand+depthwise"


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_networks(shim: HostShim, dtype: torch.dtype) -> None:
    """Are right, and the same as their steps bit for bit. The shim watches that each kernel keeps to its memory."""
    model, x = first_stages(dtype), torch.randn(2, 3, 33, 48).to(dtype)
    with use_backend("torch"), OracleConvolutions():
        eager = model(x)
    with expanding_in_one_kernel(Shim(shim)):
        found = shim.call("steps_and_network", model, x)
        launches, text = shim.call("explained", model, x)
    for name, y in found.items():
        assert torch.equal(y, found["steps"]), name
    with use_backend("torch"):
        assert_logits(found["steps"], eager, model, x)
    own = [launch for launch in launches if launch.kernel == "expand_depthwise_nhwc_fwd"]
    assert [launch.layer for launch in own] == [IN_ONE] * 3
    assert sum(launch.layer in ("expand", "depthwise") for launch in launches) == 1 + 2
    assert "expand_depthwise_nhwc_fwd" in text


def test_what_a_launch_moves_and_computes(shim: HostShim) -> None:
    model, x = first_stages(torch.float16), torch.randn(2, 3, 32, 32).half()
    runner = Shim(shim)
    with expanding_in_one_kernel(runner):
        launches, _ = shim.call("explained", model, x)
        with variable(runner, "EFFKERNELS_EXPAND_DEPTHWISE", "two"):
            apart, _ = shim.call("explained", model, x)
    (one,) = (launch for launch in launches if launch.step == 2 and launch.layer == IN_ONE)
    first, second = (launch for launch in apart if launch.step == 2 and launch.layer in IN_ONE)
    assert one.flops == first.flops + second.flops
    expanded_map = 2 * 96 * 16 * 16 * 2
    sums = (one.bytes - first.bytes - second.bytes + 2 * expanded_map) / (2 * 96 * 4)
    # Beside the map, only how many partial sums there are differs.
    assert sums == int(sums)
    assert one.bytes > 2 * (16 * 16 * 16 + 96 * 8 * 8) * 2


@pytest.mark.parametrize("batch", [64, 128])
def test_memory_of_b0_on_an_h100(shim: HostShim, batch: int) -> None:
    """Without the expanded maps of its first blocks it takes at most 0.35 of eager PyTorch's peak, in one part."""
    model, size = effkernels.efficientnet_b0().eval().bfloat16(), 224
    cost = model_cost(model.config, batch_size=batch, resolution=size, dtype=torch.bfloat16)
    eager = inference_memory(cost).eager - cost.state_bytes - batch * 3 * size**2 * 2
    with h100(shim):
        found = shim.call("network_bytes", model, (batch, 3, size, size))
    assert found / eager < 0.35


@pytest.mark.parametrize(("name", "batch"), [("efficientnet_b0", 40), ("efficientnet_b4", 8)])
def test_memory_of_parts_for_which_one_kernel_does_not_pay(
    shim: HostShim, name: str, batch: int
) -> None:
    """It would for the whole batch. Parts are as small as two kernels ask for, where two compute them."""
    model = getattr(effkernels, name)().eval().bfloat16()
    shape = (batch, 3, model.config.resolution, model.config.resolution)
    with h100(shim):
        shim.call("memory", 72 << 20, 0.87e6, 6e6)
        try:
            found = shim.call("network_bytes", model, shape)
            with variable(Shim(shim), "EFFKERNELS_EXPAND_DEPTHWISE", "two"):
                assert found <= shim.call("network_bytes", model, shape)
        finally:
            shim.call("memory")
