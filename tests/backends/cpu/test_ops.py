"""Every op, with the kernels of every instruction set: shapes, layouts, dtypes, NaN and infinities.

Hypothesis draws small cases. Beside them stand the ones that it would hardly find: those that are cut into
several groups, bands or panels, or that fill buffers several times.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings

from cpu_kernels import (
    assert_kernels_match,
    in_float64,
    instruction_set,
    largest_sum,
    run_kernels,
    run_reference,
    usable_instruction_sets,
)
from effkernels import ops
from magnitudes import gate_magnitude
from op_cases import (
    DTYPES,
    Block,
    Pointwise,
    Squeeze,
    Style,
    Window,
    blocks,
    pointwises,
    squeezes,
    windows,
)
from parity import check_padding
from path_cases import IMAGES

# They are quick.
MORE = settings(max_examples=3 * settings().max_examples)


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def styled(case: Any, dtype: torch.dtype, seed: int) -> Any:
    """The case in another dtype, with other numbers."""
    return replace(case, style=replace(case.style, dtype=dtype, seed=seed))


def check_window(case: Window, *, pooled: bool = False) -> None:
    call = ops.conv_bn_act if case.out_channels else ops.depthwise_conv_bn_act
    arguments = case.arguments()
    magnitude, depth = largest_sum(call, arguments), case.depth
    assert_kernels_match(call, arguments, case.style.threads, magnitude=magnitude, depth=depth)
    if pooled:
        call = ops.depthwise_conv_bn_act_pool
        assert_kernels_match(
            call, arguments, case.style.threads, magnitude=magnitude, depth=depth + case.pixels
        )


@MORE
@given(windows(dense=False))
def test_depthwise(case: Window) -> None:
    check_window(case, pooled=True)


DEPTHWISE = {
    # Bands of rows, and blocks of pixels that end with the row, before it, or never begin.
    "bands": Window(1, 20, (70, 29), (3, 3), padding=(1, 1, 1, 1)),
    "bands of two strides": Window(1, 20, (70, 30), (5, 5), stride=(2, 2), padding=(1, 2, 1, 2)),
    "7x7": Window(2, 33, (21, 40), (7, 7), padding=(3, 3, 3, 3)),
    "7x7 of stride 2": Window(1, 17, (33, 47), (7, 7), stride=(2, 2), padding=(3, 3, 3, 3)),
    "5x5 of stride 1 by 2": Window(1, 24, (20, 40), (5, 5), stride=(1, 2), padding=(2, 2, 2, 2)),
    "3x3 of stride 2 by 1": Window(1, 24, (20, 40), (3, 3), stride=(2, 1), padding=(1, 1, 1, 1)),
    "only padding": Window(2, 5, (1, 1), (3, 3), padding=(6, 7, 9, 5)),
    "panels": Window(1, 1999, (5, 6), (3, 3), padding=(1, 1, 1, 1)),
    "tall": Window(1, 3, (1500, 1), (5, 5), stride=(2, 2), padding=(2, 2, 2, 2)),
    "wide": Window(1, 3, (1, 1500), (5, 5), padding=(2, 2, 2, 2)),
    "rows": Window(1, 9, (80, 5), (64, 1), padding=(0, 5, 0, 0)),
    # oneDNN never returns from a depthwise bfloat16 convolution with 15 columns or more.
    "columns": Window(1, 9, (5, 120), (1, 14), padding=(0, 0, 7, 0)),
    "dilated": Window(2, 40, (30, 30), (3, 3), padding=(9, 9, 9, 9), dilation=(9, 7)),
    "empty batch": Window(0, 40, (8, 8), (3, 3), padding=(1, 1, 1, 1)),
}


@pytest.mark.parametrize("name", DEPTHWISE)
@pytest.mark.parametrize("threads", [1, 3])
def test_depthwise_paths(name: str, dtype: torch.dtype, threads: int, seed: int) -> None:
    case = styled(DEPTHWISE[name], dtype, seed)
    check_window(replace(case, style=replace(case.style, threads=threads)), pooled=True)


@MORE
@given(windows(dense=True))
def test_convolution(case: Window) -> None:
    check_window(case)


CONVOLUTIONS = {
    "stem": Window(2, 3, (33, 40), (3, 3), 32, stride=(2, 2), padding=(0, 1, 0, 1)),
    "panels": Window(1, 4, (9, 30), (3, 3), 500, padding=(1, 1, 1, 1)),
    "dilated": Window(1, 6, (20, 21), (3, 2), 70, padding=(4, 0, 1, 3), dilation=(2, 3)),
    "taps beside the image": Window(
        2, 96, (10, 1), (2, 2), 5, stride=(3, 3), padding=(3, 3, 5, 5), dilation=(3, 3)
    ),
    "1x1": Window(1, 70, (6, 50), (1, 1), 40),
    "many terms": Window(1, 200, (7, 7), (5, 5), 17, padding=(2, 2, 2, 2)),
    "only padding": Window(1, 3, (1, 1), (3, 3), 20, stride=(3, 3), padding=(5, 6, 7, 8)),
    "channels_last": Window(
        1, 19, (8, 9), (3, 3), 37, padding=(1, 1, 1, 1), style=Style(weights="channels_last")
    ),
    "strided": Window(
        1, 19, (8, 9), (3, 3), 37, padding=(1, 1, 1, 1), style=Style(weights="strided")
    ),
    "empty batch": Window(0, 3, (8, 8), (3, 3), 5),
    **IMAGES,
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_paths(name: str, dtype: torch.dtype, seed: int) -> None:
    check_window(styled(CONVOLUTIONS[name], dtype, seed))


def test_padding_stays_zero_where_images_are_normalised(dtype: torch.dtype) -> None:
    for name in usable_instruction_sets():
        with instruction_set(name):
            check_padding(lambda op, given: run_kernels(getattr(ops, op), given), dtype)


@MORE
@given(pointwises())
def test_pointwise(case: Pointwise) -> None:
    check_pointwise(case)


def check_pointwise(case: Pointwise) -> None:
    call, arguments = ops.pointwise_conv_bn_act, case.arguments()
    magnitude = largest_sum(call, arguments)
    assert_kernels_match(
        call, arguments, case.style.threads, magnitude=magnitude, depth=case.channels
    )
    if case.gated or case.residual:
        return
    pooled = {k: v for k, v in arguments.items() if k not in ("gate", "residual")}
    depth = case.channels + case.size[0] * case.size[1]
    call = ops.pointwise_conv_bn_act_pool
    assert_kernels_match(call, pooled, case.style.threads, magnitude=magnitude, depth=depth)


POINTWISES = {
    # The gate multiplies rows, or the weights of each image.
    "gate of small images": Pointwise(5, 96, 70, (7, 7), gated=True, residual=True),
    "gate of larger images": Pointwise(3, 96, 70, (16, 17), gated=True, residual=True),
    "gate of one small image": Pointwise(1, 200, 33, (3, 3), gated=True),
    "gate of one image": Pointwise(1, 96, 40, (20, 20), gated=True, residual=True),
    "groups of rows": Pointwise(1, 640, 24, (33, 40)),
    "groups across images": Pointwise(5, 530, 20, (17, 17), residual=True),
    "panels": Pointwise(2, 24, 1999, (6, 7)),
    "many terms": Pointwise(2, 2000, 50, (5, 5), gated=True),
    "one pixel": Pointwise(9, 300, 1000, (1, 1), activation="identity"),
    "one of all": Pointwise(1, 1, 1, (1, 1), gated=True, residual=True),
    "empty batch": Pointwise(0, 30, 20, (4, 4), gated=True, residual=True),
}


@pytest.mark.parametrize("name", POINTWISES)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_pointwise_paths(name: str, dtype: torch.dtype, threads: int, seed: int) -> None:
    case = styled(POINTWISES[name], dtype, seed)
    check_pointwise(replace(case, style=replace(case.style, threads=threads)))


def check_squeeze(case: Squeeze) -> None:
    call = ops.squeeze_excite_gate if case.size is None else ops.squeeze_excite
    depth = case.channels + case.squeezed + 2
    magnitude = gate_magnitude(case)
    assert_kernels_match(
        call, case.arguments(), case.style.threads, magnitude=magnitude, depth=depth
    )


@MORE
@given(squeezes(layer=False))
def test_gate(case: Squeeze) -> None:
    check_squeeze(case)


SQUEEZES = {
    "shared": Squeeze(3, 1500, 60, None),
    "alone": Squeeze(1, 24, 6, None),
    "bands": Squeeze(1, 20, 5, (80, 30)),
    "panels": Squeeze(2, 1100, 44, (5, 7)),
    "many images": Squeeze(40, 33, 8, (3, 3)),
    "empty batch": Squeeze(0, 33, 8, (3, 3)),
    "empty batch alone": Squeeze(0, 33, 8, None),
}


@pytest.mark.parametrize("name", SQUEEZES)
def test_squeeze_excite_paths(name: str, dtype: torch.dtype, seed: int) -> None:
    check_squeeze(styled(SQUEEZES[name], dtype, seed))


@MORE
@given(squeezes(layer=True))
# The gate of negative infinity is 0, and their product NaN.
@example(Squeeze(1, 1, 1, (1, 1), style=Style(strange=3, seed=3230837)))
def test_squeeze_excite(case: Squeeze) -> None:
    check_squeeze(case)


def block_magnitude(case: Block) -> float:
    """The largest sum of absolute values in the block's last product."""
    a = in_float64(case.arguments())
    wide = {"x": a["x"], **a["depthwise"]._asdict()}
    if a["expand"] is not None:
        first = {"x": a["x"], **a["expand"]._asdict(), "activation": case.activation}
        (wide["x"],) = run_reference(ops.pointwise_conv_bn_act, first)
    wide |= {"stride": case.stride, "padding": case.padding, "activation": case.activation}
    deep, pooled = run_reference(ops.depthwise_conv_bn_act_pool, wide)
    last = {"x": deep, **a["project"]._asdict(), "residual": a["x"] if case.residual else None}
    if a["gate"] is not None:
        gate = {"pooled": pooled, **a["gate"]._asdict(), "activation": case.activation}
        (last["gate"],) = run_reference(ops.squeeze_excite_gate, gate)
    return largest_sum(ops.pointwise_conv_bn_act, last)


@MORE
@given(blocks())
def test_mbconv(case: Block) -> None:
    check_block(case)


BLOCKS = {
    # Rows of the expanded map fill the buffer of a worker many times: it moves for every row or two of the result.
    "buffer moves": Block(1, 6, 34, 6, (40, 400), squeezed=4, residual=True),
    "buffer moves by two": Block(1, 6, 34, 10, (40, 390), (5, 5), (2, 2), (2, 2, 1, 2), squeezed=4),
    "buffer moves past rows": Block(1, 6, 34, 10, (40, 390), (2, 2), (3, 3), (0, 0, 0, 0)),
    "tall": Block(1, 8, 40, 8, (900, 3), squeezed=4, residual=True),
    "only padding": Block(1, 3, 20, 5, (2, 2), (3, 3), (2, 2), (7, 9, 8, 6), squeezed=4),
    # Images go through the block in groups; the last has fewer.
    "groups": Block(5, 8, 100, 16, (32, 33), squeezed=4, style=Style(threads=1)),
    "groups of one": Block(3, 4, 90, 16, (60, 61), squeezed=4, style=Style(threads=1)),
    "groups and threads": Block(3, 8, 150, 16, (40, 33), squeezed=4),
    "small images": Block(7, 40, 240, 40, (7, 7), (5, 5), (1, 1), (2,) * 4, 10, residual=True),
    "panels": Block(1, 20, 1999, 30, (5, 5), squeezed=9),
    "no expand": Block(2, 33, 0, 17, (30, 31), squeezed=8),
    "no expand, no gate": Block(2, 130, 0, 130, (12, 13), residual=True),
    "no gate": Block(2, 16, 96, 24, (20, 21), (3, 3), (2, 2), (0, 1, 0, 1)),
    "7x7": Block(1, 16, 70, 24, (20, 21), (7, 7), (1, 1), (3,) * 4, squeezed=4),
    "general kernel": Block(1, 16, 70, 24, (20, 21), (4, 2), (3, 1), (2, 3, 1, 0), squeezed=4),
    "many rows": Block(1, 4, 20, 4, (90, 6), (64, 3), (1, 1), (10, 0, 1, 1)),
    "empty batch": Block(0, 16, 96, 24, (20, 21), squeezed=4),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_mbconv_paths(name: str, dtype: torch.dtype, seed: int) -> None:
    check_block(styled(BLOCKS[name], dtype, seed))


def check_block(case: Block) -> None:
    depth = case.channels + case.kernel[0] * case.kernel[1] + case.wide
    magnitude = block_magnitude(case)
    assert_kernels_match(
        ops.mbconv, case.arguments(), case.style.threads, magnitude=magnitude, depth=depth
    )
