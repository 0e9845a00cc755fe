"""The depthwise kernel on tensor cores: each configuration, how calls are cut, and where NaN and infinities go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from cuda_kernels import Shim, channels_apart
from effkernels.analysis.cost import model_cost
from effkernels.models import get_config
from host_shim import HostShim
from parity import Runner, check
from specs.depthwise_conv_bn_act import ROWS, Depthwise

HALVES = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("name", ROWS)
def test_rows_paths(runner: Runner, name: str, seed: int) -> None:
    """In one of the types each: they differ in the products and in what is stored, not in the paths."""
    dtype = HALVES[list(ROWS).index(name) % 2]
    check(runner, ROWS[name].styled(dtype=dtype, seed=seed))


@pytest.mark.parametrize(
    ("activation", "kernel", "norm"),
    [
        ("relu", 3, "same"),
        ("relu6", 5, "none"),
        ("hardswish", 3, "float32"),
        ("identity", 5, "same"),
    ],
)
def test_activations_and_norms(
    runner: Runner, activation: str, kernel: int, norm: str, seed: int
) -> None:
    case = Depthwise(
        *(1, 16, (6, 9), (kernel, kernel)), padding=(kernel // 2,) * 4, activation=activation
    )
    check(runner, case.styled(dtype=torch.bfloat16, norm=norm, bias=norm != "same", seed=seed))


# Multiprocessors, shared memory of a block and of a multiprocessor: RTX 5090, a device of 163 KiB, H100.
DEVICES = {
    "99 KiB": (170, 99 * 1024, 100 * 1024),
    "163 KiB": (108, 163 * 1024, 164 * 1024),
    "227 KiB": (132, 227 * 1024, 228 * 1024),
}


def plan(shim: HostShim, shape: tuple[int, ...], device: str) -> dict[str, int]:
    names = [
        "parts",
        "groups",
        "abreast",
        "rows",
        "stages",
        "shares",
        "unit",
        "table",
        "blocks",
        "shared_bytes",
    ]
    return dict(zip(names, shim.call("depthwise_plan", shape, DEVICES[device]), strict=True))


# Images, channels, size, kernel and stride; groups of 8 channels, images abreast, rows and stages that an H100 was
# measured to be fastest with, or at most 5 % slower.
MEASURED = {
    (128, 32, 112, 3, 1): (4, 1, 4, 2),
    (128, 96, 112, 3, 2): (6, 1, 8, 2),
    (128, 144, 56, 3, 1): (6, 1, 8, 3),
    (128, 144, 56, 5, 2): (4, 1, 8, 3),
    (128, 240, 28, 5, 1): (4, 1, 4, 2),
    (128, 240, 28, 3, 2): (8, 2, 4, 2),
    (128, 480, 14, 3, 1): (4, 2, 4, 3),
    (128, 672, 14, 5, 1): (4, 2, 4, 2),
    (128, 672, 14, 5, 2): (4, 4, 3, 2),
    (128, 1152, 7, 5, 1): (4, 4, 4, 2),
    (128, 1152, 7, 3, 1): (4, 4, 4, 3),
    (64, 240, 114, 5, 2): (8, 1, 5, 2),
    (64, 384, 57, 5, 1): (8, 1, 8, 3),
    (64, 768, 29, 3, 1): (8, 1, 5, 3),
    (64, 1824, 29, 5, 2): (4, 2, 5, 2),
}


@pytest.mark.parametrize("layer", MEASURED, ids=str)
def test_measured_layers_have_their_configuration(
    shim: HostShim, layer: tuple[int, int, int, int, int]
) -> None:
    images, channels, size, kernel, stride = layer
    shape = (images, channels, size, size, kernel, stride, kernel // 2, kernel // 2)
    found = plan(shim, shape, "227 KiB")
    names = ("groups", "abreast", "rows", "stages")
    assert tuple(found[name] for name in names) == MEASURED[layer]
    # Whole images at 7 px; and few multiprocessors without a block.
    assert (found["unit"] > 1) == (size == 7)
    assert found["blocks"] >= 125


@pytest.mark.parametrize("device", DEVICES)
def test_every_layer_of_the_networks_fits(shim: HostShim, device: str) -> None:
    shapes = set()
    for name in [*(f"efficientnet_b{n}" for n in range(8)), "efficientnet_lite0"]:
        for layer in model_cost(name, get_config(name).resolution).layers:
            if layer.kind == "depthwise":
                channels, height, width = layer.in_shape
                pad = layer.kernel_size // 2
                shapes.add((channels, height, width, layer.kernel_size, layer.stride, pad, pad))
    assert len(shapes) > 60
    _, block_bytes, _ = DEVICES[device]
    for shape in shapes:
        for images in (1, 3, 4, 64, 100_000):
            found = plan(shim, (images, *shape), device)
            assert found["parts"] > 0, shape
            assert found["shared_bytes"] <= block_bytes, shape
            assert found["table"] <= 256, shape


@contextmanager
def told(shim: HostShim, method: str, *values: tuple[object, ...]) -> Iterator[None]:
    """Calls a method of the worker with the first arguments inside of the block, and then with the second ones."""
    inside, after = values
    shim.call(method, *inside)
    try:
        yield
    finally:
        shim.call(method, *after)


@pytest.mark.parametrize("limits", [(1, 32 * 1024), (3, 163 * 1024), (7, 227 * 1024)], ids=str)
def test_devices(shim: HostShim, limits: tuple[int, int], seed: int) -> None:
    with told(shim, "device", limits, ()):
        case = Depthwise(5, 24, (7, 11), (5, 5), padding=(2,) * 4)
        check(Shim(shim), case.styled(dtype=torch.float16, seed=seed))


def spread(y: Tensor, channel: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where values of a (1, C, H, W) map are not finite: in the channel, in its group of 8, and elsewhere."""
    strange = ~y[0].isfinite()
    group = slice(channel // 8 * 8, channel // 8 * 8 + 8)
    own, others = strange[channel].clone(), strange[group].clone()
    others[channel % 8] = False
    strange[group] = False
    return own, others, strange


X = {"x": torch.randn(1, 24, 9, 12).bfloat16(), "weight": torch.randn(24, 1, 5, 5).bfloat16()}
CHANNEL, ROW, COLUMN = 11, 4, 5


def run_strange(runner: Runner, value: float) -> Tensor:
    x = X["x"].clone()
    x[0, CHANNEL, ROW, COLUMN] = value
    arguments = {"x": x, "weight": X["weight"], "padding": 2, "activation": "identity"}
    return runner("depthwise_conv_bn_act", arguments)[0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_nan_and_infinity_spread_to_the_group_within_the_window(
    runner: Runner, value: float
) -> None:
    window = torch.zeros(9, 12, dtype=torch.bool)
    window[ROW - 2 : ROW + 3, COLUMN - 2 : COLUMN + 3] = True
    y = run_strange(runner, value)
    own, others, elsewhere = spread(y, CHANNEL)
    assert torch.equal(own, window)
    # In its own channel it is what PyTorch makes of it.
    weights = X["weight"][CHANNEL, 0].flip(0, 1).float()
    expected = (torch.tensor(value) * weights).bfloat16().flatten()
    torch.testing.assert_close(y[0, CHANNEL][window], expected, equal_nan=True)
    assert not elsewhere.any()
    for channel in range(8):
        if channel != CHANNEL % 8:
            assert torch.equal(others[channel], window)
            assert y[0, CHANNEL // 8 * 8 + channel][window].isnan().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
def test_they_do_not_where_channels_are_kept_apart(runner: Runner, value: float) -> None:
    with channels_apart(runner):
        _, others, elsewhere = spread(run_strange(runner, value), CHANNEL)
    assert not others.any()
    assert not elsewhere.any()


def test_builds_without_its_code_run_the_other_kernels(shim: HostShim) -> None:
    with told(shim, "tensor_memory", (False,), (True,)):
        _, others, _ = spread(run_strange(Shim(shim), torch.nan), CHANNEL)
        check(Shim(shim), ROWS["3x3, two abreast"].styled(dtype=torch.bfloat16))
    assert not others.any()
