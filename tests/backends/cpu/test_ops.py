"""Every op, with the kernels of every instruction set: shapes, layouts, dtypes, NaN and infinities.

Hypothesis draws small cases. The fixed cases are those that it would rarely find: cases that are split
into several groups, bands or chunks, or that fill buffers several times.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given

from cpu_kernels import (
    COMPOSED,
    assert_kernels_match,
    instruction_set,
    run_kernels,
    usable_instruction_sets,
)
from effkernels import ops
from parity import check_padding
from specs import (
    conv_bn_act,
    depthwise_conv_bn_act,
    mbconv,
    pointwise_conv_bn_act,
    squeeze_excite,
    squeeze_excite_gate,
)
from specs.conv_bn_act import Dense
from specs.depthwise_conv_bn_act import Depthwise
from specs.generators import cases
from specs.mbconv import Block
from specs.pointwise_conv_bn_act import Pointwise
from specs.squeeze_excite import Squeeze
from specs.squeeze_excite_gate import Gate
from specs.style import DTYPES, Style


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@given(cases(depthwise_conv_bn_act.generate))
def test_depthwise(case: Depthwise) -> None:
    assert_kernels_match(case)


DEPTHWISE = {
    # Bands of rows, and blocks of pixels that end with the row, before its end, or do not exist.
    "bands": Depthwise(1, 20, (70, 29), (3, 3), padding=(1, 1, 1, 1)),
    "bands of two strides": Depthwise(1, 20, (70, 30), (5, 5), stride=(2, 2), padding=(1, 2, 1, 2)),
    "7x7": Depthwise(2, 33, (21, 40), (7, 7), padding=(3, 3, 3, 3)),
    "7x7 of stride 2": Depthwise(1, 17, (33, 47), (7, 7), stride=(2, 2), padding=(3, 3, 3, 3)),
    "5x5 of stride 1 by 2": Depthwise(1, 24, (20, 40), (5, 5), stride=(1, 2), padding=(2, 2, 2, 2)),
    "3x3 of stride 2 by 1": Depthwise(1, 24, (20, 40), (3, 3), stride=(2, 1), padding=(1, 1, 1, 1)),
    "only padding": Depthwise(2, 5, (1, 1), (3, 3), padding=(6, 7, 9, 5)),
    "many chunks": Depthwise(1, 1999, (5, 6), (3, 3), padding=(1, 1, 1, 1)),
    "tall": Depthwise(1, 3, (1500, 1), (5, 5), stride=(2, 2), padding=(2, 2, 2, 2)),
    "wide": Depthwise(1, 3, (1, 1500), (5, 5), padding=(2, 2, 2, 2)),
    "rows": Depthwise(1, 9, (80, 5), (64, 1), padding=(0, 5, 0, 0)),
    # oneDNN never returns from a depthwise bfloat16 convolution with 15 columns or more.
    "columns": Depthwise(1, 9, (5, 120), (1, 14), padding=(0, 0, 7, 0)),
    "dilated": Depthwise(2, 40, (30, 30), (3, 3), padding=(9, 9, 9, 9), dilation=(9, 7)),
    "empty batch": Depthwise(0, 40, (8, 8), (3, 3), padding=(1, 1, 1, 1)),
}


@pytest.mark.parametrize("name", DEPTHWISE)
@pytest.mark.parametrize("threads", [1, 3])
def test_depthwise_paths(name: str, dtype: torch.dtype, threads: int, seed: int) -> None:
    assert_kernels_match(DEPTHWISE[name].styled(dtype=dtype, seed=seed, threads=threads))


@given(cases(conv_bn_act.generate))
def test_convolution(case: Dense) -> None:
    assert_kernels_match(case)


CONVOLUTIONS = {
    "stem": Dense(2, 3, (33, 40), (3, 3), 32, stride=(2, 2), padding=(0, 1, 0, 1)),
    "many chunks": Dense(1, 4, (9, 30), (3, 3), 500, padding=(1, 1, 1, 1)),
    "dilated": Dense(1, 6, (20, 21), (3, 2), 70, padding=(4, 0, 1, 3), dilation=(2, 3)),
    "taps beside the image": Dense(
        2, 96, (10, 1), (2, 2), 5, stride=(3, 3), padding=(3, 3, 5, 5), dilation=(3, 3)
    ),
    "1x1": Dense(1, 70, (6, 50), (1, 1), 40),
    "many terms": Dense(1, 200, (7, 7), (5, 5), 17, padding=(2, 2, 2, 2)),
    "only padding": Dense(1, 3, (1, 1), (3, 3), 20, stride=(3, 3), padding=(5, 6, 7, 8)),
    "channels_last": Dense(
        1, 19, (8, 9), (3, 3), 37, padding=(1, 1, 1, 1), style=Style(weights="channels_last")
    ),
    "strided": Dense(
        1, 19, (8, 9), (3, 3), 37, padding=(1, 1, 1, 1), style=Style(weights="strided")
    ),
    "empty batch": Dense(0, 3, (8, 8), (3, 3), 5),
    **conv_bn_act.IMAGES,
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_paths(name: str, dtype: torch.dtype, seed: int) -> None:
    assert_kernels_match(CONVOLUTIONS[name].styled(dtype=dtype, seed=seed))


def test_padding_is_zero_after_normalisation(dtype: torch.dtype) -> None:
    for name in usable_instruction_sets():
        with instruction_set(name):
            check_padding(lambda op, given: run_kernels(getattr(ops, op), given), dtype)


@given(cases(pointwise_conv_bn_act.generate))
def test_pointwise(case: Pointwise) -> None:
    assert_kernels_match(case, but=COMPOSED)


POINTWISES = {
    # The gate is multiplied into rows, or into the weights of each image.
    "gate of small images": Pointwise(5, 96, 70, (7, 7), gated=True, residual=True),
    "gate of larger images": Pointwise(3, 96, 70, (16, 17), gated=True, residual=True),
    "gate of one small image": Pointwise(1, 200, 33, (3, 3), gated=True),
    "gate of one image": Pointwise(1, 96, 40, (20, 20), gated=True, residual=True),
    "groups of rows": Pointwise(1, 640, 24, (33, 40)),
    "groups across images": Pointwise(5, 530, 20, (17, 17), residual=True),
    "many chunks": Pointwise(2, 24, 1999, (6, 7)),
    "many terms": Pointwise(2, 2000, 50, (5, 5), gated=True),
    # Products of pairs: numbers of terms and of rows that fill no tile, and strips that chunks share.
    "odd terms": Pointwise(1, 45, 200, (11, 11), gated=True),
    "a row in the last tile": Pointwise(1, 95, 70, (7, 7)),
    "one pixel": Pointwise(9, 300, 1000, (1, 1), activation="identity"),
    "one of all": Pointwise(1, 1, 1, (1, 1), gated=True, residual=True),
    "empty batch": Pointwise(0, 30, 20, (4, 4), gated=True, residual=True),
}


@pytest.mark.parametrize("name", POINTWISES)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_pointwise_paths(name: str, dtype: torch.dtype, threads: int, seed: int) -> None:
    case = POINTWISES[name].styled(dtype=dtype, seed=seed, threads=threads)
    assert_kernels_match(case, but=COMPOSED)


@given(cases(squeeze_excite_gate.generate))
def test_squeeze_excite_gate(case: Gate) -> None:
    assert_kernels_match(case)


SQUEEZES = {
    "shared": Gate(3, 1500, 60),
    "alone": Gate(1, 24, 6),
    "bands": Squeeze(1, 20, 5, (80, 30)),
    "many chunks": Squeeze(2, 1100, 44, (5, 7)),
    "many images": Squeeze(40, 33, 8, (3, 3)),
    "empty batch": Squeeze(0, 33, 8, (3, 3)),
    "empty batch alone": Gate(0, 33, 8),
}


@pytest.mark.parametrize("name", SQUEEZES)
def test_squeeze_excite_paths(name: str, dtype: torch.dtype, seed: int) -> None:
    assert_kernels_match(SQUEEZES[name].styled(dtype=dtype, seed=seed))


@given(cases(squeeze_excite.generate))
# The gate of negative infinity is 0, and their product is NaN.
@example(Squeeze(1, 1, 1, (1, 1), style=Style(strange=3, seed=3230837)))
def test_squeeze_excite(case: Squeeze) -> None:
    assert_kernels_match(case)


@given(cases(mbconv.generate))
def test_mbconv(case: Block) -> None:
    assert_kernels_match(case)


@pytest.mark.parametrize("name", mbconv.EDGES)
def test_mbconv_paths(name: str, dtype: torch.dtype, seed: int) -> None:
    assert_kernels_match(mbconv.EDGES[name].styled(dtype=dtype, seed=seed))
