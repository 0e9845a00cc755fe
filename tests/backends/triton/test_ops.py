"""Every op: shapes, layouts, dtypes, NaN and infinities. Cases are small: the interpreter takes milliseconds a
program.

Hypothesis draws some; the fixed ones take each path of the kernels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings

from effkernels.reference.elementwise import ACTIVATIONS
from interpreter import Candidate, Interpreter
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
    pointwise_conv_bn_act,
    squeeze_excite,
    squeeze_excite_gate,
)
from specs._window import Window
from specs.case import PAD1, PAD2, PAD3, Case
from specs.conv_bn_act import Dense, with_few_terms
from specs.depthwise_conv_bn_act import Depthwise
from specs.drawing import fitting
from specs.generators import cases
from specs.pointwise_conv_bn_act import Pointwise
from specs.samples import labels_of_parts
from specs.squeeze_excite import Squeeze
from specs.squeeze_excite_gate import Gate
from specs.style import DTYPES, Style
from tiers import slow_unless

# Shrinking would take minutes.
few = settings(max_examples=6, phases=(Phase.explicit, Phase.generate))


# The interpreter widens halves as it does bfloat16, and Hypothesis draws float32 too.
@pytest.fixture(params=slow_unless([torch.bfloat16], DTYPES), ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def affordable(case: Any) -> Any:
    """The case with fewer images, channels and pixels, so that it takes some tens of programs, and fitting padding."""
    case = replace(case, n=min(case.n, 2), channels=min(case.channels, 70))
    if getattr(case, "size", None) is None:
        return case
    height = min(case.size[0], 30)
    case = replace(case, size=(height, min(case.size[1], max(1, 30 // height))))
    if isinstance(case, Window):
        padding = fitting(case.size, case.kernel, case.dilation, case.padding)
        return replace(case, padding=padding)
    return case


@few
@given(case=cases(pointwise_conv_bn_act.generate).map(affordable))
def test_pointwise(runner: Runner, case: Pointwise) -> None:
    check(runner, case)


@pytest.mark.parametrize(
    "name",
    slow_unless(
        set(pointwise_conv_bn_act.EDGES) - {"large", "K of 112"}, pointwise_conv_bn_act.EDGES
    ),
)
def test_pointwise_paths(runner: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    check(runner, pointwise_conv_bn_act.EDGES[name].styled(dtype=dtype, seed=seed))


# Replace larger cases of these names: several tiles down and across, the last ones incomplete; two chunks of
# channels.
DEPTHWISE_HERE = depthwise_conv_bn_act.EDGES | {
    "3x3": Depthwise(1, 70, (5, 9), (3, 3), padding=PAD1),
    "3x3/2": Depthwise(1, 70, (10, 18), (3, 3), stride=(2, 2), padding=(0, 1, 0, 1)),
    "5x5": Depthwise(1, 70, (5, 9), (5, 5), padding=PAD2),
    "5x5/2": Depthwise(1, 70, (5, 18), (5, 5), stride=(2, 2), padding=(1, 2, 1, 2)),
    "7x7": Depthwise(1, 40, (3, 9), (7, 7), padding=PAD3),
    "7x7/2": Depthwise(1, 40, (5, 18), (7, 7), stride=(2, 2), padding=PAD3),
    "tall": Depthwise(1, 8, (70, 1), (5, 5), stride=(2, 2), padding=PAD2),
    "wide": Depthwise(1, 8, (1, 70), (3, 3), padding=PAD1),
    "dilated": Depthwise(1, 40, (12, 11), (3, 3), padding=(4,) * 4, dilation=(9, 7)),
    "9x9": Depthwise(1, 70, (5, 6), (9, 9), padding=(4,) * 4),
    "64x1": Depthwise(1, 9, (66, 5), (64, 1), padding=(0, 1, 0, 0)),
    "2x4": Depthwise(1, 3, (8, 20), (2, 4), padding=(1, 0, 3, 0)),
}


@few
@given(case=cases(depthwise_conv_bn_act.generate).map(affordable))
def test_depthwise(runner: Runner, case: Depthwise) -> None:
    check(runner, case)


# float16 is only widened when it is loaded, so the cases that Hypothesis draws suffice for it.
@pytest.mark.parametrize(
    "dtype", slow_unless([torch.bfloat16], [torch.float32, torch.bfloat16]), ids=str
)
@pytest.mark.parametrize("name", slow_unless(set(DEPTHWISE_HERE) - {"9x9", "64x1"}, DEPTHWISE_HERE))
def test_depthwise_paths(runner: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    check(runner, DEPTHWISE_HERE[name].styled(dtype=dtype, seed=seed))


@few
@given(case=cases(squeeze_excite_gate.generate).map(affordable))
def test_squeeze_excite_gate(runner: Runner, case: Gate) -> None:
    check(runner, case)


@few
@given(case=cases(squeeze_excite.generate).map(affordable))
def test_squeeze_excite(runner: Runner, case: Squeeze) -> None:
    check(runner, case)


HERE = {
    "one image, many hidden channels": Gate(1, 5, 1000),
    "infinite means": Squeeze(3, 9, 5, (4, 4), style=Style(strange=3)),
}
# The other cases have more hidden channels than the kernel accepts.
SQUEEZED = HERE | {
    name: case
    for name, case in (squeeze_excite_gate.EDGES | squeeze_excite.EDGES).items()
    if case.squeezed <= 1024
}


@pytest.mark.parametrize("name", SQUEEZED)
def test_squeeze_excite_paths(runner: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    check(runner, SQUEEZED[name].styled(dtype=dtype, seed=seed))


@pytest.mark.parametrize("name", conv_bn_act.EDGES)
def test_convolution_paths(runner: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    check(runner, conv_bn_act.EDGES[name].styled(dtype=dtype, seed=seed))


@few
@given(case=cases(conv_bn_act.generate).map(with_few_terms).map(affordable))
def test_convolution(runner: Runner, case: Dense) -> None:
    check(runner, case)


# Small cases, and how many configurations each has besides the one that it runs with.
TUNED: dict[str, tuple[Case, int]] = {
    "3x3": (Depthwise(1, 33, (3, 9), (3, 3), padding=PAD1), 6),
    "5x5/2": (Depthwise(1, 33, (5, 5), (5, 5), stride=(2, 2), padding=PAD2), 2),
    "expand": (pointwise_conv_bn_act.EDGES["expand"], 7),
    "stem": (Dense(1, 3, (9, 9), (3, 3), 30, stride=(2, 2), padding=PAD1), 1),
    "gate": (Gate(6, 30, 45), 1),
    "layer": (Squeeze(1, 20, 5, (9, 9)), 1),
}


@pytest.mark.parametrize("name", TUNED)
def test_every_configuration_that_tuning_may_choose(
    interpreter: Interpreter, name: str, seed: int
) -> None:
    case, places = TUNED[name]
    for place in range(1, places + 1):
        check(Candidate(interpreter, place), case.styled(dtype=torch.bfloat16, seed=seed))


def test_padding_is_zero_after_normalisation(runner: Runner, dtype: torch.dtype) -> None:
    check_padding(runner, dtype)


@pytest.mark.parametrize("dtype", slow_unless([torch.bfloat16], DTYPES), ids=str)
@pytest.mark.parametrize("label", labels_of_parts())
def test_private_ops_take_maps_of_any_strides(
    runner: Runner, label: str, dtype: torch.dtype
) -> None:
    check_any_strides(runner, label, dtype)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_activations_of_both_signs_and_infinities(runner: Runner, activation: str) -> None:
    check_activation(runner, activation)


# Ten seconds each in the interpreter.
NETWORKS = [
    ("efficientnet_lite0", torch.float32),
    *(("efficientnet_b0", dtype) for dtype in DTYPES),
]


@pytest.mark.parametrize(
    ("name", "dtype"), slow_unless([("efficientnet_b0", torch.bfloat16)], NETWORKS), ids=str
)
def test_whole_networks(runner: Runner, name: str, dtype: torch.dtype) -> None:
    calls = check_network(runner, name, dtype)
    assert {call for call in calls if not call.endswith(" on triton")} == {"linear on torch"}
    assert len(calls) > 20
