"""The paper's Tables 2 and 4 as data, and Table 2 compared with our counts.

Source: Tan and Le 2019 (arXiv 1905.11946v5). Table 2: ImageNet, single model, single crop. Its
FLOPs are MACs. Each group holds one EfficientNet and the networks compared with it; the ratios
divide a network's parameters or FLOPs by those of the EfficientNet of its group.
"""

from __future__ import annotations

from dataclasses import dataclass

from effkernels.analysis.cost import model_cost
from effkernels.models import VARIANTS


@dataclass(frozen=True)
class Published:
    """One row of Table 2 as printed.

    ``group`` names the EfficientNet that the row is compared with, which may be the row itself.
    Accuracies are in percent; ``params`` and ``flops`` are the printed counts (two or three
    digits); ratios are relative to the group's EfficientNet. None where the paper prints nothing.
    """

    network: str
    group: str
    top1: float
    top5: float
    params: float
    flops: float | None
    params_ratio: float = 1.0
    flops_ratio: float | None = 1.0

    @property
    def is_efficientnet(self) -> bool:
        """Whether this row is its group's EfficientNet."""
        return self.network == VARIANTS[self.group].title


_Row = tuple[str, float, float, float, "float | None", float, "float | None"]


_Own = tuple[float, float, float, float]


def _group(name: str, own: _Own, *compared: _Row) -> tuple[Published, ...]:
    """Rows of (network, top-1, top-5, parameters in millions, FLOPs in billions, both ratios).

    The first row, ``own``, is the EfficientNet ``name``: its name and its ratios, which are 1, are
    left out.
    """
    rows: tuple[_Row, ...] = ((VARIANTS[name].title, *own, 1.0, 1.0), *compared)
    return tuple(
        Published(
            network=network,
            group=name,
            top1=top1,
            top5=top5,
            params=round(millions * 1e6),
            flops=None if billions is None else round(billions * 1e9),
            params_ratio=params_ratio,
            flops_ratio=flops_ratio,
        )
        for network, top1, top5, millions, billions, params_ratio, flops_ratio in rows
    )


TABLE_2: tuple[Published, ...] = (
    *_group(
        "efficientnet_b0",
        (77.1, 93.3, 5.3, 0.39),
        ("ResNet-50", 76.0, 93.0, 26, 4.1, 4.9, 11),
        ("DenseNet-169", 76.2, 93.2, 14, 3.5, 2.6, 8.9),
    ),
    *_group(
        "efficientnet_b1",
        (79.1, 94.4, 7.8, 0.70),
        ("ResNet-152", 77.8, 93.8, 60, 11, 7.6, 16),
        ("DenseNet-264", 77.9, 93.9, 34, 6.0, 4.3, 8.6),
        ("Inception-v3", 78.8, 94.4, 24, 5.7, 3.0, 8.1),
        ("Xception", 79.0, 94.5, 23, 8.4, 3.0, 12),
    ),
    *_group(
        "efficientnet_b2",
        (80.1, 94.9, 9.2, 1.0),
        ("Inception-v4", 80.0, 95.0, 48, 13, 5.2, 13),
        ("Inception-ResNet-v2", 80.1, 95.1, 56, 13, 6.1, 13),
    ),
    *_group(
        "efficientnet_b3",
        (81.6, 95.7, 12, 1.8),
        ("ResNeXt-101", 80.9, 95.6, 84, 32, 7.0, 18),
        ("PolyNet", 81.3, 95.8, 92, 35, 7.7, 19),
    ),
    *_group(
        "efficientnet_b4",
        (82.9, 96.4, 19, 4.2),
        ("SENet", 82.7, 96.2, 146, 42, 7.7, 10),
        ("NASNet-A", 82.7, 96.2, 89, 24, 4.7, 5.7),
        ("AmoebaNet-A", 82.8, 96.1, 87, 23, 4.6, 5.5),
        ("PNASNet", 82.9, 96.2, 86, 23, 4.5, 6.0),  # as printed, although 23 / 4.2 is 5.5
    ),
    *_group(
        "efficientnet_b5",
        (83.6, 96.7, 30, 9.9),
        ("AmoebaNet-C", 83.5, 96.5, 155, 41, 5.2, 4.1),
    ),
    *_group(
        "efficientnet_b6",
        (84.0, 96.8, 43, 19),
    ),
    *_group(
        "efficientnet_b7",
        (84.3, 97.0, 66, 37),
        ("GPipe", 84.3, 97.0, 557, None, 8.4, None),
    ),
)


@dataclass(frozen=True)
class PublishedLatency:
    """One row of Table 4 as printed: seconds of one picture on one core of a Xeon E5-2690, the mean of 20 runs.

    Attributes:
        model, top1, seconds: the EfficientNet, its accuracy in percent, and its latency.
        other, other_top1, other_seconds: of the network beside it.
        ratio: as printed.
        torchvision: what torchvision calls that network; None where it has none.
    """

    model: str
    top1: float
    seconds: float
    other: str
    other_top1: float
    other_seconds: float
    ratio: float
    torchvision: str | None


TABLE_4: tuple[PublishedLatency, ...] = (
    PublishedLatency("efficientnet_b1", 78.8, 0.098, "ResNet-152", 77.8, 0.554, 5.7, "resnet152"),
    PublishedLatency("efficientnet_b7", 84.4, 3.1, "GPipe", 84.3, 19.0, 6.1, None),
)
"""Latency on a CPU. Its accuracies of B1 and B7 are those of an earlier version than Table 2's."""


@dataclass(frozen=True)
class TableRow:
    """A published row and our counts for its group.

    ``params`` and ``macs`` are our exact counts at the model's own resolution; None for a compared
    network. The ratios divide the published count by our count for the group's EfficientNet. For
    the EfficientNets themselves they show how far the printed count is from ours.
    """

    published: Published
    params: int | None
    macs: int | None
    params_ratio: float
    macs_ratio: float | None


def table_rows() -> tuple[TableRow, ...]:
    """Table 2 in the paper's order, with our counts for B0 to B7."""
    counts = {
        row.group: (cost.params, cost.macs)
        for row in TABLE_2
        if row.is_efficientnet
        for cost in (model_cost(row.group),)
    }
    rows = []
    for row in TABLE_2:
        params, macs = counts[row.group]
        rows.append(
            TableRow(
                published=row,
                params=params if row.is_efficientnet else None,
                macs=macs if row.is_efficientnet else None,
                params_ratio=row.params / params,
                macs_ratio=None if row.flops is None else row.flops / macs,
            )
        )
    return tuple(rows)
