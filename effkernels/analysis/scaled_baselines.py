"""The paper's Tables 3 and 7 as data: networks scaled in one dimension or in all three.

Source: Tan and Le 2019 (arXiv 1905.11946v5); its FLOPs are MACs. Its counts are 0.91 to 1.24 times the exact ones of
networks that are scaled so here: rounding aside, up to a fifth above (B0's width and resolution), and a tenth below
(ResNet-50's width).
"""

from __future__ import annotations

from dataclasses import dataclass

from effkernels.analysis.cost import model_cost
from effkernels.models import get_config

_NAMES = {
    "MobileNetV1": "mobilenet_v1",
    "MobileNetV2": "mobilenet_v2",
    "ResNet-50": "resnet50",
    "EfficientNet-B0": "efficientnet_b0",
}


@dataclass(frozen=True)
class ScaledBaseline:
    """One published row.

    Attributes:
        network: what was scaled.
        scaling: "none", "depth", "width", "resolution" or "compound".
        factors: of depth, width and resolution; None where the paper does not print them.
        flops: as printed.
        top1: accuracy on ImageNet in percent.
        table: 3 or 7.
    """

    network: str
    scaling: str
    factors: tuple[float, float, float] | None
    flops: float
    top1: float
    table: int


_DIMENSIONS = ("depth", "width", "resolution")
_COMPOUND = (1.4, 1.2, 1.3)


def _rows(
    table: int,
    network: str,
    own: tuple[float, float],
    single: dict[str, tuple[float, float, float]],
    compound: tuple[float, float],
    factors: tuple[float, float, float] | None,
) -> tuple[ScaledBaseline, ...]:
    """``own`` and ``compound``: FLOPs in billions and accuracy; ``single``: dimension -> factor and these two."""
    rows = [ScaledBaseline(network, "none", (1.0, 1.0, 1.0), round(own[0] * 1e9), own[1], table)]
    for name, (factor, billions, top1) in single.items():
        depth, width, side = (factor if name == one else 1.0 for one in _DIMENSIONS)
        rows.append(
            ScaledBaseline(network, name, (depth, width, side), round(billions * 1e9), top1, table)
        )
    flops = round(compound[0] * 1e9)
    rows.append(ScaledBaseline(network, "compound", factors, flops, compound[1], table))
    return tuple(rows)


TABLE_3: tuple[ScaledBaseline, ...] = (
    *_rows(
        3,
        "MobileNetV1",
        (0.6, 70.6),
        {"width": (2.0, 2.2, 74.2), "resolution": (2.0, 2.2, 72.7)},
        (2.3, 75.6),
        _COMPOUND,
    ),
    *_rows(
        3,
        "MobileNetV2",
        (0.3, 72.0),
        {
            "depth": (4.0, 1.2, 76.8),
            "width": (2.0, 1.1, 76.4),
            "resolution": (2.0, 1.2, 74.8),
        },
        (1.3, 77.4),
        None,
    ),
    *_rows(
        3,
        "ResNet-50",
        (4.1, 76.0),
        {
            "depth": (4.0, 16.2, 78.1),
            "width": (2.0, 14.7, 77.7),
            "resolution": (2.0, 16.4, 77.5),
        },
        (16.7, 78.8),
        None,
    ),
)
"""Networks of others, scaled."""

TABLE_7: tuple[ScaledBaseline, ...] = _rows(
    7,
    "EfficientNet-B0",
    (0.4, 77.3),
    {"depth": (4.0, 1.8, 79.0), "width": (2.0, 1.8, 78.9), "resolution": (2.0, 1.9, 79.1)},
    (1.8, 81.1),
    _COMPOUND,
)
"""The five models whose activation maps are compared."""


@dataclass(frozen=True)
class ScaledRow:
    """A published row and our counts for the network scaled so.

    ``params`` and ``macs`` are our exact counts, and ``ratio`` the published FLOPs over these MACs; None where the
    paper does not print the factors.
    """

    published: ScaledBaseline
    params: int | None = None
    macs: int | None = None
    ratio: float | None = None


def scaled_rows() -> tuple[ScaledRow, ...]:
    """Tables 3 and 7 in the paper's order, with our counts."""
    return tuple(map(_counted, (*TABLE_3, *TABLE_7)))


def _counted(row: ScaledBaseline) -> ScaledRow:
    if row.factors is None:
        return ScaledRow(row)
    depth, width, resolution = row.factors
    base = get_config(_NAMES[row.network])
    cost = model_cost(base.scale(depth=depth, width=width, resolution=resolution))
    return ScaledRow(row, cost.params, cost.macs, row.flops / cost.macs)
