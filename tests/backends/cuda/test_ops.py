"""Every op: shapes, layouts, dtypes, NaN and infinities. Small cases, which the host shim is quick with.

Hypothesis draws most; beside them stand the ones that take each path of the kernels.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings

from cuda_kernels import LABELS, channels_apart
from parity import (
    Runner,
    check,
    check_activation,
    check_any_strides,
    check_network,
    check_padding,
)
from specs import (
    conv_bn_act,
    depthwise_conv_bn_act,
    mbconv,
    squeeze_excite,
    squeeze_excite_gate,
)
from specs.conv_bn_act import Dense, with_few_terms
from specs.depthwise_conv_bn_act import Depthwise
from specs.generators import cases
from specs.mbconv import Block
from specs.squeeze_excite import Squeeze
from specs.squeeze_excite_gate import Gate
from specs.style import DTYPES

# A case takes up to a second in the host shim.
few = settings(max_examples=20)

# The others differ in what the CPU's kernel does with its buffers.
MBCONV_PATHS = (
    "only padding",
    "small images",
    "no expand",
    "no expand, no gate",
    "no gate",
    "general kernel",
    "multiples of 8",
    "multiples of 8, 5x5 of stride 2",
    "empty batch",
)


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@few
@given(case=cases(depthwise_conv_bn_act.generate))
def test_depthwise(runner: Runner, case: Depthwise) -> None:
    with channels_apart(runner) if case.style.strange else nullcontext():
        check(runner, case)


@pytest.mark.parametrize("name", depthwise_conv_bn_act.EDGES)
def test_depthwise_paths(runner: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    check(runner, depthwise_conv_bn_act.EDGES[name].styled(dtype=dtype, seed=seed))


@few
@given(case=cases(squeeze_excite_gate.generate))
def test_squeeze_excite_gate(runner: Runner, case: Gate) -> None:
    check(runner, case)


@few
@given(case=cases(squeeze_excite.generate))
def test_squeeze_excite(runner: Runner, case: Squeeze) -> None:
    check(runner, case)


SQUEEZES = squeeze_excite_gate.EDGES | squeeze_excite.EDGES


@pytest.mark.parametrize("name", SQUEEZES)
def test_squeeze_excite_paths(runner: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    check(runner, SQUEEZES[name].styled(dtype=dtype, seed=seed))


@few
@given(case=cases(conv_bn_act.generate).map(with_few_terms))
def test_convolution(runner: Runner, case: Dense) -> None:
    check(runner, case)


@pytest.mark.parametrize("name", conv_bn_act.EDGES)
def test_convolution_paths(runner: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    check(runner, conv_bn_act.EDGES[name].styled(dtype=dtype, seed=seed))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("left", [0, 1])
def test_an_infinite_element_at_each_place_of_a_stems_window(
    runner: Runner, layout: torch.memory_format, left: int
) -> None:
    """One in each image. It meets no weight but its own: with the zeros that fill up a product it would be NaN."""
    x = torch.zeros(27, 3, 9, 12)
    for i in range(27):
        x[i, i // 9, 2 + i // 3 % 3, 4 - left + i % 3] = -torch.inf
    x = x.half().contiguous(memory_format=layout)
    weight = torch.randn(32, 3, 3, 3).half()
    window = {"stride": (2, 2), "padding": (0, 1, left, 1)}
    (y,) = runner("conv_bn_act", {"x": x, "weight": weight, **window, "activation": "identity"})
    assert torch.equal(y[:, :, 1, 2].double(), -torch.inf * weight.double().flatten(1).T)
    assert not y.isnan().any()


@few
@given(case=cases(mbconv.generate))
def test_mbconv(runner: Runner, case: Block) -> None:
    with channels_apart(runner) if case.style.strange else nullcontext():
        check(runner, case)


@pytest.mark.parametrize("name", MBCONV_PATHS)
def test_mbconv_paths(runner: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    check(runner, mbconv.EDGES[name].styled(dtype=dtype, seed=seed))


def test_padding_stays_zero_where_images_are_normalised(runner: Runner, dtype: torch.dtype) -> None:
    check_padding(runner, dtype)


@pytest.mark.parametrize("label", LABELS)
def test_private_ops_take_maps_of_any_strides(
    runner: Runner, label: str, dtype: torch.dtype
) -> None:
    check_any_strides(runner, label, dtype)


@pytest.mark.parametrize("activation", ["silu", "relu", "relu6", "hardswish", "identity"])
def test_activations_on_both_sides_and_beyond(runner: Runner, activation: str) -> None:
    check_activation(runner, activation)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0"])
def test_whole_networks(runner: Runner, name: str, dtype: torch.dtype) -> None:
    calls = check_network(runner, name, dtype)
    # A call a block: two stages of four of which the second expands.
    blocks = len(calls) - 3
    expected = ["conv_bn_act", *["mbconv"] * blocks, "pointwise_conv_bn_act_pool"]
    assert calls[:-1] == [f"{op} on cuda" for op in expected]


def test_a_whole_network_of_uint8_images(runner: Runner) -> None:
    calls = check_network(runner, "efficientnet_lite0", torch.float32, uint8=True)
    assert calls[0] == "conv_bn_act on cuda"
