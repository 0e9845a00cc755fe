"""1x1 convolutions on tensor cores: a shape for each way that a call is cut.

Which way a shape takes depends on the number of multiprocessors: the host shim has 2, so that small shapes take those
of large ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from cuda_kernels import Shim
from effkernels import ops
from host_shim import HostShim
from parity import Runner, assert_matches, check
from specs.case import Check
from specs.generators import cases
from specs.pointwise_conv_bn_act import EDGES, Pointwise, generate
from specs.style import DTYPES, Style

# A case takes seconds in the host shim.
few = settings(max_examples=10)
CASES = {
    "few pixels": Pointwise(2, 72, 24, (5, 5), gated=True, residual=True),
    "few pixels, one product": Pointwise(1, 8, 8, (3, 3), activation="relu"),
    "few pixels, steps of every warp": Pointwise(1, 520, 16, (4, 4), gated=True),
    "narrow, tiles that span images": Pointwise(3, 136, 24, (9, 15), gated=True, residual=True),
    "narrow, many tiles a block": Pointwise(1, 16, 16, (57, 57), residual=True),
    "narrow, tiles of images": Pointwise(2, 24, 32, (57, 30), gated=True),
    "middle": Pointwise(2, 40, 40, (20, 20), gated=True, activation="identity"),
    "middle, many tiles a block": Pointwise(1, 16, 40, (25, 43)),
    "wide": Pointwise(2, 24, 144, (12, 12), activation="relu6"),
    "wide, gated": Pointwise(3, 200, 96, (12, 12), gated=True),
    "square": Pointwise(3, 112, 112, (12, 12), gated=True, residual=True),
    "square, not gated": Pointwise(2, 24, 240, (13, 10), activation="hardswish"),
    "low, gates of many images": Pointwise(4, 64, 72, (5, 5), gated=True),
    "low, an image a pixel": Pointwise(70, 80, 40, (1, 1), gated=True, residual=True),
    "means of several images a block": Pointwise(5, 72, 136, (5, 5)),
    "means of several tiles": Pointwise(4, 8, 8, (9, 9), activation="relu"),
    "means of parts of an image": Pointwise(1, 24, 72, (20, 20)),
    "means of parts of some images": Pointwise(2, 136, 16, (10, 10)),
    "one channel": Pointwise(2, 64, 1, (9, 9), gated=True),
}
HALVES = (torch.bfloat16, torch.float16)


@few
@given(case=cases(generate))
def test_any_shape(runner: Runner, case: Pointwise) -> None:
    check(runner, case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("edge", EDGES.values(), ids=EDGES)
def test_edges(runner: Runner, edge: Pointwise, dtype: torch.dtype, seed: int) -> None:
    if isinstance(runner, Shim) and edge.pixels > 1000:
        # A quarter of the pixels are still several tiles for each of its two multiprocessors.
        edge = replace(edge, size=tuple(-(-side // 2) for side in edge.size))
    check(runner, edge.styled(dtype=dtype, seed=seed))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_shapes(runner: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    check(runner, CASES[name].styled(dtype=dtype, seed=seed))


# On warpgroups: columns of one, how many there are, and groups of rows and of columns. The device has two
# multiprocessors here too.
WARPGROUPS = {
    "32, rows, weights stay": (
        [32, 3, 3, 1],
        Pointwise(3, 136, 24, (9, 15), gated=True, residual=True),
    ),
    "32, no gates": ([32, 3, 3, 1], Pointwise(2, 40, 16, (10, 10), activation="identity")),
    "64, weights come with pixels": ([64, 3, 3, 1], Pointwise(2, 200, 40, (10, 10), gated=True)),
    "64, no gates": (
        [64, 3, 3, 1],
        Pointwise(1, 328, 64, (7, 10), activation="relu", residual=True),
    ),
    "96, gates": ([96, 3, 3, 1], Pointwise(2, 72, 80, (9, 9), gated=True)),
    "128, gates": ([128, 3, 3, 1], Pointwise(2, 112, 112, (12, 12), gated=True, residual=True)),
    "160, two blocks of columns": (
        [160, 2, 2, 1],
        Pointwise(2, 200, 304, (7, 7), gated=True, residual=True),
    ),
    "64, one warpgroup": ([64, 1, 1, 1], Pointwise(2, 72, 40, (8, 7), gated=True)),
    "96, one warpgroup": ([96, 1, 1, 1], Pointwise(2, 200, 88, (7, 7), gated=True, residual=True)),
    "96, one warpgroup, no gates": (
        [96, 1, 1, 1],
        Pointwise(2, 200, 80, (7, 7), activation="relu6", residual=True),
    ),
    "128, one warpgroup": ([128, 1, 1, 1], Pointwise(2, 136, 112, (6, 9), gated=True)),
    "160, one warpgroup": ([160, 1, 1, 1], Pointwise(1, 72, 320, (7, 9), gated=True)),
    "192, one warpgroup": ([192, 1, 1, 1], Pointwise(2, 328, 184, (7, 7), gated=True)),
    "192, two warpgroups": ([192, 2, 2, 1], Pointwise(2, 80, 192, (11, 8), gated=True)),
    "96, turns": ([96, 3, 1, 1], Pointwise(2, 16, 96, (20, 25))),
    "96, turns of two blocks of columns": (
        [96, 3, 1, 1],
        Pointwise(2, 40, 168, (10, 10), residual=True),
    ),
    "144, turns": ([144, 3, 1, 1], Pointwise(1, 24, 144, (15, 20), activation="hardswish")),
    "240, turns, one tile each": ([240, 2, 1, 1], Pointwise(1, 64, 232, (10, 10))),
    "96, rows, no gates": (
        [96, 3, 3, 1],
        Pointwise(2, 136, 96, (14, 15), activation="identity", residual=True),
    ),
    "128, rows, no gates": (
        [128, 3, 3, 1],
        Pointwise(3, 200, 112, (10, 10), activation="identity"),
    ),
    "192, rows, no gates": ([192, 2, 2, 1], Pointwise(2, 72, 384, (10, 10), residual=True)),
    "192, rows, no gates, weights come with pixels": (
        [192, 2, 2, 1],
        Pointwise(2, 456, 200, (10, 10)),
    ),
    "80, columns": ([80, 3, 1, 3], Pointwise(2, 80, 232, (10, 10))),
    "80, columns, two blocks of columns": (
        [80, 3, 1, 3],
        Pointwise(2, 72, 400, (9, 10), activation="hardswish"),
    ),
    "80, columns, a warpgroup without any": (
        [80, 3, 1, 3],
        Pointwise(3, 72, 152, (10, 10), residual=True),
    ),
    "96, columns": ([96, 3, 1, 3], Pointwise(3, 192, 288, (9, 9), residual=True)),
    "112, columns": ([112, 3, 1, 3], Pointwise(3, 112, 320, (9, 9))),
    "96, columns of two warpgroups": (
        [96, 2, 1, 2],
        Pointwise(3, 296, 176, (8, 9), activation="relu"),
    ),
}


@pytest.fixture
def hopper(shim: HostShim) -> Iterator[HostShim]:
    """A device with wgmma and the shared memory of an H100."""
    shim.call("device", 2, 227 * 1024)
    shim.call("warpgroups", True)
    yield shim
    shim.call("device")
    shim.call("warpgroups", False)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", WARPGROUPS)
def test_warpgroups(hopper: HostShim, name: str, dtype: torch.dtype, seed: int) -> None:
    configuration, case = WARPGROUPS[name]
    before = hopper.call("warpgroups", True)
    (one, *_) = case.styled(dtype=dtype, seed=seed).checks()
    assert_matches(Shim(hopper), one)
    assert hopper.call("warpgroups", True) > before
    shape = (case.n, case.channels, case.out_channels, *case.size, case.gated)
    assert hopper.call("warpgroup_plan", *shape)[:4] == configuration


# How warpgroups.cu cuts 1x1 convolutions on an H100: columns of a warpgroup, warpgroups, groups of rows and of columns,
# buffers of results, stages, and whether weights stay. By images, input and output channels, side, gates.
ON_AN_H100 = {
    "B0, 24 > 144": ((128, 24, 144, 56, False), [144, 3, 1, 1, 2, 12, True]),
    "B0, 80 > 480": ((128, 80, 480, 14, False), [80, 3, 1, 3, 2, 8, True]),
    "B0, 112 > 672": ((128, 112, 672, 14, False), [112, 3, 1, 3, 2, 6, True]),
    "B0, 192 > 1152": ((128, 192, 1152, 7, False), [96, 3, 1, 3, 1, 8, True]),
    "B5, 128 > 768": ((64, 128, 768, 29, False), [192, 2, 2, 1, 2, 5, True]),
    "B5, 304 > 1824": ((64, 304, 1824, 15, False), [96, 2, 1, 2, 1, 8, True]),
    "B5, 512 > 3072": ((64, 512, 3072, 15, False), [192, 2, 2, 1, 1, 4, False]),
    "B0, 32 images": ((32, 192, 1152, 7, False), [96, 3, 3, 1, 1, 3, False]),
    "B0, 8 images": ((8, 192, 1152, 7, False), [96, 1, 1, 1, 1, 3, False]),
    "Lite0, 672 > 112": ((128, 672, 112, 14, False), [128, 3, 3, 1, 1, 4, False]),
    "B0, 240 > 80": ((128, 240, 80, 14, True), [96, 3, 3, 1, 1, 4, False]),
    "B0, 240 > 80, 32 images": ((32, 240, 80, 14, True), [96, 1, 1, 1, 1, 4, False]),
}


@pytest.mark.parametrize("name", ON_AN_H100)
def test_how_warpgroups_divide_the_work_of_an_h100(hopper: HostShim, name: str) -> None:
    (images, channels, out_channels, side, gated), plan = ON_AN_H100[name]
    hopper.call("device", 132, 227 * 1024)
    shape = (images, channels, out_channels, side, side, gated)
    assert hopper.call("warpgroup_plan", *shape) == plan


# Means on warpgroups: segments of a block and columns of a segment.
MEANS = {
    "images of 49 pixels": ([4, 56], Pointwise(9, 72, 200, (7, 7))),
    "images of 64 pixels": ([2, 64], Pointwise(3, 136, 72, (8, 8), activation="relu6")),
    "three parts of each image": ([3, 48], Pointwise(2, 64, 128, (12, 12), activation="identity")),
    "parts of several images in a block": ([3, 48], Pointwise(3, 80, 320, (9, 10))),
    "fewer stages of weights than steps": ([2, 64], Pointwise(2, 640, 200, (8, 8))),
    "a unit for each block": ([2, 64], Pointwise(1, 8, 72, (3, 3), activation="hardswish")),
}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", MEANS)
def test_means_on_warpgroups(hopper: HostShim, name: str, dtype: torch.dtype, seed: int) -> None:
    configuration, case = MEANS[name]
    before = hopper.call("warpgroups", True)
    (_, means, _) = case.styled(dtype=dtype, seed=seed).checks()
    assert means.op == "pointwise_conv_bn_act_pool"
    assert_matches(Shim(hopper), means)
    assert hopper.call("warpgroups", True) > before
    shape = (case.n, case.channels, case.out_channels, *case.size, False)
    assert hopper.call("means_plan", *shape)[:2] == configuration


# By images, input and output channels, side.
MEANS_NOT_TAKEN = {
    "one unit": (2, 320, 64, 7),
    "sums as large as the pixels": (128, 32, 1280, 112),
    "more input channels than shared memory has room for": (2, 2048, 1280, 7),
}


@pytest.mark.parametrize("name", MEANS_NOT_TAKEN)
def test_means_that_warpgroups_do_not_take(hopper: HostShim, name: str) -> None:
    images, channels, out_channels, side = MEANS_NOT_TAKEN[name]
    hopper.call("device", 132, 227 * 1024)
    assert hopper.call("means_plan", images, channels, out_channels, side, side, False) is None


# How warpgroup_means.cu cuts the heads of networks on an H100: segments of a block, columns of a segment, groups of
# output channels, units of 64 of a block, stages. By images, input and output channels, side.
HEADS = {
    "B0, 128 images": ((128, 320, 1280, 7), [4, 56, 4, 5, 10]),
    "B0, an image": ((1, 320, 1280, 7), [2, 64, 20, 1, 5]),
    "B4, 64 images": ((64, 448, 1792, 12), [3, 48, 2, 14, 12]),
    "B5, 64 images": ((64, 512, 2048, 15), [2, 64, 1, 32, 12]),
    "B7, 32 images": ((32, 640, 2560, 19), [3, 48, 3, 14, 5]),
}


@pytest.mark.parametrize("name", HEADS)
def test_how_an_h100_computes_means(hopper: HostShim, name: str) -> None:
    (images, channels, out_channels, side), plan = HEADS[name]
    hopper.call("device", 132, 227 * 1024)
    assert hopper.call("means_plan", images, channels, out_channels, side, side, False) == plan


# By how much shared memory there is, with one multiprocessor.
NOT_TAKEN = {
    "too many gates for a tile": (227, Pointwise(2, 16, 24, (3, 5), gated=True)),
    "weights that would be read again": (99, Pointwise(1, 64, 96, (20, 20), activation="relu")),
}


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_what_warpgroups_do_not_take(hopper: HostShim, name: str, seed: int) -> None:
    kilobytes, case = NOT_TAKEN[name]
    hopper.call("device", 1, kilobytes * 1024)
    before = hopper.call("warpgroups", True)
    (one, *_) = case.styled(dtype=torch.bfloat16, seed=seed).checks()
    assert_matches(Shim(hopper), one)
    assert hopper.call("warpgroups", True) == before


# Images, input and output channels, side, gates; and whether few_pixels.cu takes it on an H100.
SMALL = {
    "B0, an image": ((1, 1152, 192, 7, True), True),
    "B0, an image, expanding": ((1, 24, 144, 56, False), True),
    "B0, 8 images": ((8, 1152, 320, 7, True), True),
    "B0, 32 images": ((32, 672, 192, 7, True), False),
    "B4, an image, expanding": ((1, 160, 960, 24, False), True),
    "B4, an image": ((1, 2688, 448, 12, True), True),
    "B4, 8 images": ((8, 2688, 448, 12, True), False),
    "B7, an image": ((1, 2304, 384, 19, True), True),
    "B7, an image, more channels": ((1, 3840, 640, 19, True), False),
    "tiles fill the GPU": ((8, 640, 3840, 19, False), False),
}


@pytest.mark.parametrize("name", SMALL)
def test_few_pixels_of_an_h100(hopper: HostShim, name: str) -> None:
    """Not where its small blocks would read more, and longer, than larger tiles."""
    (images, channels, out_channels, side, gated), taken = SMALL[name]
    hopper.call("device", 132, 227 * 1024)
    shape = (images, channels, out_channels, side, side, gated)
    assert hopper.call("has_few_pixels", *shape) == taken


def _offset(t: Tensor) -> Tensor:
    """The same values from the second element of a storage on."""
    moved = torch.empty(t.numel() + 1, dtype=t.dtype)[1:].as_strided(t.shape, t.stride())
    return moved.copy_(t)


@pytest.mark.parametrize("name", ["x", "weight", "gate", "residual"])
def test_what_is_not_aligned_is_computed_too(runner: Runner, name: str, seed: int) -> None:
    case = Pointwise(2, 16, 24, (6, 7), gated=True, residual=True)
    arguments = case.styled(dtype=torch.bfloat16, seed=seed).arguments()
    for label in ("x", "residual"):
        arguments[label] = arguments[label].contiguous(memory_format=torch.channels_last)
    arguments[name] = _offset(arguments[name])
    assert arguments[name].data_ptr() % 16
    assert_matches(
        runner,
        Check("pointwise_conv_bn_act", arguments, case.magnitude(arguments), case.depth),
    )


def test_gates_are_rounded_as_in_memory(runner: Runner) -> None:
    """Products with gates are rounded to the dtype of x before they are multiplied with weights."""
    x = torch.tensor([1.0, 1.0078125]).bfloat16().repeat(8).view(1, 16, 1, 1).expand(1, 16, 3, 5)
    gate = torch.full((1, 16), 1.00390625 / 1.0078125)
    for columns in (8, 136):
        for size in (x, x.repeat(1, 1, 8, 8)):
            (y,) = runner(
                "pointwise_conv_bn_act",
                {
                    "x": size.contiguous(memory_format=torch.channels_last),
                    "weight": torch.eye(16)[:, :16].repeat(9, 1)[:columns].bfloat16(),
                    "gate": gate,
                    "activation": "identity",
                },
            )
            rounded = (size.float() * gate[:, :, None, None]).bfloat16()
            assert torch.equal(y, rounded.repeat(1, 9, 1, 1)[:, :columns])


def test_float32_sums_are_not_one_chain(runner: Runner) -> None:
    """Terms that are too small beside the sum so far count together: 16 of them are added first."""
    small = 2.0**-25
    x = torch.full((1, 1280, 1, 1), small)
    x[:, 0] = 1.0
    arguments = {"x": x, "weight": torch.ones(8, 1280), "activation": "identity"}
    (y,) = runner("pointwise_conv_bn_act", arguments)
    exact = 1.0 + 1279 * small
    assert (y.double() - exact).abs().max() <= 16 * small


def test_a_row_that_is_not_finite_leaves_the_others_alone(runner: Runner, seed: int) -> None:
    torch.manual_seed(seed)
    for size in ((7, 7), (20, 20)):
        x = torch.randn(1, 72, *size).bfloat16().contiguous(memory_format=torch.channels_last)
        arguments = {"x": x, "weight": torch.randn(136, 72).bfloat16(), "activation": "identity"}
        (clean,) = runner("pointwise_conv_bn_act", arguments)
        strange = x.clone()
        strange[0, 71, 3, 4] = torch.nan
        (y,) = runner("pointwise_conv_bn_act", {**arguments, "x": strange})
        assert y[0, :, 3, 4].isnan().all()
        y[0, :, 3, 4] = clean[0, :, 3, 4]
        assert torch.equal(y, clean)


def test_the_map_of_a_squeeze_is_the_convolutions(shim: HostShim, seed: int) -> None:
    case = Pointwise(2, 40, 136, (5, 5), style=Style(dtype=torch.float16, seed=seed))
    arguments = case.arguments_of("pointwise_conv_bn_act_squeeze", case.arguments())
    runner = Shim(shim)
    y, mean = runner("pointwise_conv_bn_act_squeeze", arguments)
    (alone,) = runner("pointwise_conv_bn_act_pool", arguments)
    assert torch.equal(mean, alone)
    assert torch.equal(y, runner("pointwise_conv_bn_act", arguments)[0])


def test_empty_batches(runner: Runner) -> None:
    x = torch.empty(0, 16, 5, 5).half()
    arguments = {"x": x, "weight": torch.randn(24, 16).half()}
    assert runner("pointwise_conv_bn_act", arguments)[0].shape == (0, 24, 5, 5)
    y, mean = runner("pointwise_conv_bn_act_squeeze", arguments)
    assert (y.shape, mean.shape) == ((0, 24, 5, 5), (0, 24))
    assert ops.pointwise_conv_bn_act_pool(**arguments).shape == mean.shape
