"""The scaling formula and the named coefficients, compared with published architectures."""

from __future__ import annotations

import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effkernels.scaling import (
    NAMED,
    compound_scale,
    round_filters,
    round_repeats,
    round_resolution,
)

# Channels of stem, stages and head; repeats of the stages (tensorflow/tpu,
# efficientnet_builder.py). For Lite, before stem, head, first and last stage are fixed.
BASE_CHANNELS = (32, 16, 24, 40, 80, 112, 192, 320, 1280)
BASE_REPEATS = (1, 2, 2, 3, 3, 4, 1)
B2_CHANNELS = (32, 16, 24, 48, 88, 120, 208, 352, 1408)
B3_CHANNELS = (40, 24, 32, 48, 96, 136, 232, 384, 1536)
B4_CHANNELS = (48, 24, 32, 56, 112, 160, 272, 448, 1792)
B1_REPEATS = (2, 3, 3, 4, 4, 5, 2)
B3_REPEATS = (2, 3, 3, 5, 5, 6, 2)
B4_REPEATS = (2, 4, 4, 6, 6, 8, 2)
ARCHITECTURES = {
    "efficientnet_b0": (BASE_CHANNELS, BASE_REPEATS, 224, 0.2),
    "efficientnet_b1": (BASE_CHANNELS, B1_REPEATS, 240, 0.2),
    "efficientnet_b2": (B2_CHANNELS, B1_REPEATS, 260, 0.3),
    "efficientnet_b3": (B3_CHANNELS, B3_REPEATS, 300, 0.3),
    "efficientnet_b4": (B4_CHANNELS, B4_REPEATS, 380, 0.4),
    "efficientnet_b5": (
        (48, 24, 40, 64, 128, 176, 304, 512, 2048),
        (3, 5, 5, 7, 7, 9, 3),
        456,
        0.4,
    ),
    "efficientnet_b6": (
        (56, 32, 40, 72, 144, 200, 344, 576, 2304),
        (3, 6, 6, 8, 8, 11, 3),
        528,
        0.5,
    ),
    "efficientnet_b7": (
        (64, 32, 48, 80, 160, 224, 384, 640, 2560),
        (4, 7, 7, 10, 10, 13, 4),
        600,
        0.5,
    ),
    "efficientnet_b8": (
        (72, 32, 56, 88, 176, 248, 424, 704, 2816),
        (4, 8, 8, 11, 11, 15, 4),
        672,
        0.5,
    ),
    "efficientnet_l2": (
        (136, 72, 104, 176, 344, 480, 824, 1376, 5504),
        (6, 11, 11, 16, 16, 22, 6),
        800,
        0.5,
    ),
    "efficientnet_lite0": (BASE_CHANNELS, BASE_REPEATS, 224, 0.2),
    "efficientnet_lite1": (BASE_CHANNELS, B1_REPEATS, 240, 0.2),
    "efficientnet_lite2": (B2_CHANNELS, B1_REPEATS, 260, 0.3),
    "efficientnet_lite3": (B3_CHANNELS, B3_REPEATS, 280, 0.3),
    "efficientnet_lite4": (B4_CHANNELS, B4_REPEATS, 300, 0.3),
}


def test_every_named_model_is_tested() -> None:
    assert set(ARCHITECTURES) == set(NAMED)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_named_coefficients_give_the_published_architecture(name: str) -> None:
    channels, repeats, resolution, dropout = ARCHITECTURES[name]
    c = NAMED[name]
    assert tuple(round_filters(x, c.width) for x in BASE_CHANNELS) == channels
    assert tuple(round_repeats(r, c.depth) for r in BASE_REPEATS) == repeats
    assert (c.resolution, c.dropout) == (resolution, dropout)


def test_round_filters_keeps_nine_tenths() -> None:
    assert round_filters(17.7, 1.0) == 16  # 16 / 17.7 = 0.904
    assert round_filters(17.8, 1.0) == 24  # 16 / 17.8 = 0.899
    assert round_filters(20, 1.0) == 24  # halves up
    assert round_filters(3, 1.0) == 8  # never below the divisor
    assert round_filters(10, 1.0, divisor=1) == 10


@pytest.mark.parametrize(
    ("repeats", "depth"),
    [(25, 2.2), (25, 4.4), (3, 1 / 3), (3, 5 / 3), (10, 1.1), (3, 1.1**2 / 1.1**2)],
)
def test_round_repeats_ignores_float_error(repeats: int, depth: float) -> None:
    # 2.2 * 25 is 55.00000000000001, whose plain ceil would be one block too many.
    assert round_repeats(repeats, depth) == round(repeats * depth)


def test_a_stage_keeps_a_block() -> None:
    assert round_repeats(1, 1e-12) == 1


sizes = st.floats(min_value=0.01, max_value=1e4)


@given(sizes, sizes, st.integers(1, 64))
def test_round_filters_is_monotone_and_close(a: float, b: float, divisor: int) -> None:
    low, high = sorted((a, b))
    rounded = round_filters(low, 1.0, divisor)
    assert rounded <= round_filters(high, 1.0, divisor)
    assert rounded % divisor == 0
    assert rounded >= 0.9 * low * (1 - 1e-9)
    assert abs(rounded - low) <= divisor


@given(st.integers(1, 50), sizes, sizes)
def test_round_repeats_is_monotone_and_a_ceiling(repeats: int, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert round_repeats(repeats, low) <= round_repeats(repeats, high)
    scaled, rounded = repeats * low, round_repeats(repeats, low)
    assert rounded - 1 < scaled <= rounded + 1e-9 * max(1.0, scaled)


@pytest.mark.parametrize(
    ("size", "divisor", "rounded"),
    [
        (257.6, 1, 258),
        (257.5, 1, 258),
        (257.4, 1, 257),
        (257.6, 32, 256),
        (272, 32, 288),
        (3, 8, 8),
    ],
)
def test_round_resolution(size: float, divisor: int, rounded: int) -> None:
    assert round_resolution(size, divisor) == rounded


# 1.2^phi, 1.1^phi and round(224 * 1.15^phi).
@pytest.mark.parametrize(
    ("phi", "depth", "width", "resolution"),
    [
        (0, 1.0, 1.0, 224),
        (0.5, 1.0954451150103321, 1.0488088481701516, 240),
        (1, 1.2, 1.1, 258),
        (2, 1.44, 1.21, 296),
        (7, 3.5831808, 1.9487171, 596),
    ],
)
def test_compound_scale(phi: float, depth: float, width: float, resolution: int) -> None:
    scale = compound_scale(phi)
    assert scale.depth == pytest.approx(depth, rel=1e-12)
    assert scale.width == pytest.approx(width, rel=1e-12)
    assert scale.resolution == resolution
    assert scale.nominal_ratio == 2.0**phi


def test_the_papers_constraint_is_reported_and_passes_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scale = compound_scale(1.0)
    assert scale.constraint == pytest.approx(1.92027)
    assert scale.constraint_met


def test_another_constraint_warns_at_the_caller() -> None:
    with pytest.warns(UserWarning, match=r"= 3\.600 is not about 2: MACs will grow") as caught:
        scale = compound_scale(1.0, alpha=1.6, beta=1.5, gamma=1.0)
    assert caught[0].filename == __file__
    assert not scale.constraint_met


def test_dropout_rises_from_b0_to_b7_as_in_the_paper() -> None:
    assert compound_scale(0).dropout == pytest.approx(0.2)
    assert compound_scale(7).dropout == pytest.approx(0.5)
    assert compound_scale(9).dropout == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phi": -0.1}, "phi must be finite and at least 0, got -0.1"),
        ({"phi": math.nan}, "phi must be finite"),
        ({"phi": math.inf}, "phi must be finite"),
        ({"phi": 1e6}, "phi=1e[+]06 is too large"),
        ({"phi": 1, "alpha": 0.9}, "alpha must be finite and at least 1, got 0.9"),
        ({"phi": 1, "beta": 0.0}, "beta must be finite and at least 1"),
        ({"phi": 1, "gamma": -2.0}, "gamma must be finite and at least 1"),
        ({"phi": 1, "base_resolution": 0}, "base_resolution must be at least 1, got 0"),
        ({"phi": 1, "resolution_divisor": 0}, "divisor must be at least 1"),
    ],
)
def test_impossible_values(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compound_scale(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("phi", ["1", None, True, 1j])
def test_phi_must_be_a_number(phi: object) -> None:
    with pytest.raises(TypeError, match="phi must be a number"):
        compound_scale(phi)  # type: ignore[arg-type]


def test_bad_arguments_of_the_rounding() -> None:
    with pytest.raises(ValueError, match="width must be above 0"):
        round_filters(32, 0.0)
    with pytest.raises(ValueError, match="depth must be finite"):
        round_repeats(1, -1.0)
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        round_repeats(0, 1.0)
    with pytest.raises(TypeError, match="repeats must be an int"):
        round_repeats(1.5, 1.0)  # type: ignore[arg-type]
