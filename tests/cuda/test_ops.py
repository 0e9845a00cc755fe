"""Every op: shapes, layouts, dtypes, NaN and infinities. Small cases, which the host shim is quick with.

Hypothesis draws most; beside them stand the ones that take each path of the kernels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

from cuda_kernels import LABELS, Runner, assert_matches, check_squeeze, check_window
from op_cases import DTYPES, Squeeze, Style, Window, squeezes, windows
from op_samples import labels, samples


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def styled(case: Any, dtype: torch.dtype, seed: int) -> Any:
    return replace(case, style=replace(case.style, dtype=dtype, seed=seed))


@given(case=windows(dense=False))
def test_depthwise(runner: Runner, case: Window) -> None:
    check_window(runner, case)


PAD1, PAD2, PAD3 = (1,) * 4, (2,) * 4, (3,) * 4
DEPTHWISE = {
    # Several tiles down and across, the last ones cut; several chunks of channels.
    "3x3": Window(2, 136, (19, 37), (3, 3), padding=PAD1),
    "3x3/2": Window(2, 136, (35, 18), (3, 3), stride=(2, 2), padding=(0, 1, 0, 1)),
    "5x5": Window(1, 136, (18, 36), (5, 5), padding=PAD2),
    "5x5/2": Window(1, 136, (29, 37), (5, 5), stride=(2, 2), padding=(1, 2, 1, 2)),
    "7x7": Window(1, 72, (17, 19), (7, 7), padding=PAD3),
    "7x7/2": Window(1, 72, (19, 37), (7, 7), stride=(2, 2), padding=PAD3),
    # Whole vectors of halves and of floats, of floats alone, and neither; one pair, one channel.
    "12 channels": Window(2, 12, (9, 9), (3, 3), padding=PAD1),
    "67 channels": Window(2, 67, (9, 9), (5, 5), padding=PAD2),
    "2 channels": Window(2, 2, (9, 9), (5, 5), padding=PAD2),
    "1 channel": Window(2, 1, (9, 9), (3, 3), stride=(2, 2), padding=PAD1),
    "not aligned": Window(2, 64, (9, 9), (3, 3), padding=PAD1, style=Style(layout="offset")),
    "tall": Window(1, 8, (300, 1), (5, 5), stride=(2, 2), padding=PAD2),
    "wide": Window(1, 8, (1, 300), (3, 3), padding=PAD1),
    "one pixel": Window(3, 40, (1, 1), (5, 5), padding=PAD2),
    "only padding": Window(2, 5, (1, 1), (3, 3), padding=(6, 7, 9, 5)),
    # The general kernel.
    "dilated": Window(2, 40, (30, 30), (3, 3), padding=(9,) * 4, dilation=(9, 7)),
    "stride 2 by 1": Window(1, 72, (14, 9), (3, 3), stride=(2, 1), padding=PAD1),
    "stride 3": Window(1, 72, (14, 9), (5, 5), stride=(3, 3), padding=PAD2),
    "9x9": Window(1, 130, (11, 12), (9, 9), padding=(4,) * 4),
    "64x1": Window(1, 9, (80, 5), (64, 1), padding=(0, 5, 0, 0)),
    "2x4": Window(1, 3, (20, 30), (2, 4), padding=(1, 0, 3, 0)),
    "empty batch": Window(0, 40, (8, 8), (3, 3), padding=PAD1),
}


@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise_paths(runner: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    check_window(runner, styled(DEPTHWISE[name], dtype, seed))


@given(case=squeezes(layer=False))
def test_gate(runner: Runner, case: Squeeze) -> None:
    check_squeeze(runner, case)


@given(case=squeezes(layer=True))
def test_squeeze_excite(runner: Runner, case: Squeeze) -> None:
    check_squeeze(runner, case)


SQUEEZES = {
    "gate": Squeeze(3, 700, 45, None),
    "gates that share weights": Squeeze(66, 70, 9, None),
    "no hidden channels": Squeeze(2, 9, 0, None),
    "no gates": Squeeze(0, 33, 8, None),
    "bands": Squeeze(1, 20, 5, (30, 20)),
    "chunks": Squeeze(2, 200, 11, (5, 7)),
    "67 channels": Squeeze(2, 67, 3, (9, 9)),
    "not aligned": Squeeze(2, 64, 3, (9, 9), style=Style(layout="offset")),
    "no images": Squeeze(0, 33, 8, (3, 3)),
}


@pytest.mark.parametrize("name", SQUEEZES)
def test_squeeze_excite_paths(runner: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    check_squeeze(runner, styled(SQUEEZES[name], dtype, seed))


def few_terms(case: Window) -> Window:
    taps = case.kernel[0] * case.kernel[1]
    return replace(case, channels=min(case.channels, 256 // taps))


@given(case=windows(dense=True).map(few_terms))
def test_convolution(runner: Runner, case: Window) -> None:
    check_window(runner, case)


CONVOLUTIONS = {
    "stem": Window(2, 3, (33, 40), (3, 3), 32, stride=(2, 2), padding=(0, 1, 0, 1)),
    "stem of B7": Window(1, 3, (17, 19), (3, 3), 64, stride=(2, 2), padding=PAD1),
    "chunks": Window(1, 4, (9, 30), (3, 3), 200, padding=PAD1),
    "256 terms": Window(1, 64, (6, 7), (2, 2), 70, padding=PAD1),
    "dilated": Window(1, 6, (20, 21), (3, 2), 70, padding=(4, 0, 1, 3), dilation=(2, 3)),
    "only padding": Window(1, 3, (1, 1), (3, 3), 20, stride=(3, 3), padding=(5, 6, 7, 8)),
    "channels_last": Window(
        1, 9, (8, 9), (3, 3), 37, padding=PAD1, style=Style(weights="channels_last")
    ),
    "strided": Window(1, 9, (8, 9), (3, 3), 37, padding=PAD1, style=Style(weights="strided")),
    "empty batch": Window(0, 3, (8, 8), (3, 3), 5),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_paths(runner: Runner, name: str, dtype: torch.dtype, seed: int) -> None:
    check_window(runner, styled(CONVOLUTIONS[name], dtype, seed))


@pytest.mark.parametrize("label", LABELS)
def test_private_ops_take_maps_of_any_strides(
    runner: Runner, label: str, dtype: torch.dtype
) -> None:
    case = samples(dtype)[labels().index(label)]
    maps = [i for i, a in enumerate(case.flat) if isinstance(a, Tensor) and a.dim() == 4 and i != 1]
    found = []
    for strided in (
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t.contiguous(),
        lambda t: torch.stack((t, t + 1), -1)[..., 0],
        lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        flat = tuple(strided(a) if i in maps else a for i, a in enumerate(case.flat))
        found.append(runner.private(case.name, flat))
    for other in found[1:]:
        for ours, same in zip(other, found[0], strict=True):
            assert torch.equal(ours, same)
            assert ours.stride() == same.stride()


@pytest.mark.parametrize("activation", ["silu", "relu", "relu6", "hardswish", "identity"])
def test_activations_on_both_sides_and_beyond(runner: Runner, activation: str) -> None:
    ends = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, 88.7, -88.7, 3e38, -3e38])
    for x in (torch.linspace(-20, 0, 1024), torch.linspace(0, 20, 1024), ends):
        arguments = {
            "x": x.view(1, 8, 1, -1),
            "weight": torch.ones(8, 1, 1, 1),
            "activation": activation,
        }
        finite = x[x.isfinite()].abs().max().item() if x is not ends else 1.0
        assert_matches(runner, "depthwise_conv_bn_act", arguments, magnitude=finite, depth=1)
