"""The paper's Table 2: complete, consistent with itself, and compared with our counts."""

from __future__ import annotations

import pytest

from effkernels.scaling import TABLE_2, Published, model_cost, table_rows
from model_names import TO_B7


def test_groups_open_with_their_efficientnet() -> None:
    assert [row.network for row in TABLE_2 if row.is_efficientnet] == [
        f"EfficientNet-B{i}" for i in range(8)
    ]
    groups = list(dict.fromkeys(row.group for row in TABLE_2))
    assert groups == TO_B7
    for group in groups:
        rows = [row for row in TABLE_2 if row.group == group]
        assert [row.is_efficientnet for row in rows] == [True] + [False] * (len(rows) - 1)
        assert (rows[0].params_ratio, rows[0].flops_ratio) == (1.0, 1.0)
    assert len(TABLE_2) == 24


def bounds(count: float) -> tuple[float, float]:
    """The range of values that are printed as this number of two or three digits."""
    unit = next(10.0**e for e in range(12, -1, -1) if count % 10**e == 0)
    # 26 M and 1.0 B are printed to their last digit, and so are 30 M and 60 M.
    unit = min(unit, 10.0 ** (len(str(int(count))) - 2))
    return count - unit / 2, count + unit / 2


@pytest.mark.parametrize("row", TABLE_2, ids=lambda row: row.network)
def test_printed_ratios_follow_from_the_printed_counts(row: Published) -> None:
    base = next(r for r in TABLE_2 if r.group == row.group)
    pairs = [(row.params, base.params, row.params_ratio), (row.flops, base.flops, row.flops_ratio)]
    for count, divisor, ratio in pairs:
        if count is None or divisor is None or ratio is None:
            assert row.network == "GPipe"
            continue
        (low, high), (low_base, high_base) = bounds(count), bounds(divisor)
        if (row.network, ratio) == ("PNASNet", 6.0):
            assert count / divisor == pytest.approx(5.48, abs=0.01)  # an error in the paper
            continue
        slack = 0.5 if ratio >= 10 else 0.05
        assert low / high_base - slack <= ratio <= high / low_base + slack


def test_our_counts_agree_with_the_printed_parameters() -> None:
    for row in table_rows():
        if row.params is not None:
            assert row.published.params == pytest.approx(row.params, rel=0.025)


def test_our_macs_agree_with_the_printed_flops() -> None:
    # The paper prints 4.2 B and 9.9 B for B4 and B5, whose convolutions at 380 and 456 pixels take
    # 4.39 G and 10.27 G.
    for row in table_rows():
        if row.macs is not None:
            assert row.published.flops == pytest.approx(row.macs, rel=0.05)


def test_ratios_divide_the_published_count_by_ours() -> None:
    rows = {row.published.network: row for row in table_rows()}
    assert list(rows) == [row.network for row in TABLE_2]
    b0, resnet = rows["EfficientNet-B0"], rows["ResNet-50"]
    ours = model_cost("efficientnet_b0")
    assert (b0.params, b0.macs) == (ours.params, ours.macs)
    assert (resnet.params, resnet.macs) == (None, None)
    assert resnet.params_ratio == 26e6 / ours.params
    assert resnet.macs_ratio == 4.1e9 / ours.macs
    assert rows["GPipe"].macs_ratio is None
    assert rows["GPipe"].params_ratio == pytest.approx(8.4, abs=0.05)
