"""The paper's Figures 1 and 5, drawn from its Table 2: accuracy against parameters and against FLOPs.

Source: Tan and Le 2019 (arXiv 1905.11946v5). Nothing is measured here; beside the printed counts of the EfficientNets
are ours, which are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from effkernels.analysis.paper import table_rows
from effkernels.studies.report import Document, table

SIZE = (13.0, 6.0)
"""Of the picture, in inches."""

# Which quantity of a row, what stands below its axis, and the factor to that unit.
_PANELS = (
    ("params", "Figure 1: parameters in millions", 1e-6),
    ("flops", "Figure 5: FLOPs (multiply-accumulates) in billions", 1e-9),
)
_TICKS = {"params": (5, 10, 20, 50, 100, 200, 500), "flops": (0.5, 1, 2, 5, 10, 20, 50)}


def figures() -> Document:
    """Table 2 as rows: what the two figures show.

    Returns:
        ``rows`` in the paper's order with ``network``, ``efficientnet`` (whether it is one), ``top1`` in percent,
        ``params`` and ``flops`` as printed (None where the paper prints none), ``our_params`` and ``our_macs``
        (None but for EfficientNets).
    """
    rows = [
        {
            "network": row.published.network,
            "efficientnet": row.published.is_efficientnet,
            "top1": row.published.top1,
            "params": row.published.params,
            "flops": row.published.flops,
            "our_params": row.params,
            "our_macs": row.macs,
        }
        for row in table_rows()
    ]
    return {
        "study": "figures",
        "source": "Tan and Le 2019 (arXiv 1905.11946v5), Table 2: ImageNet, single model, single crop",
        "rows": rows,
    }


def page(document: Document) -> str:
    """The document as Markdown."""
    lines = [
        [
            row["network"],
            f"{row['top1']:.1f}",
            _count(row["params"], 1e-6, "M"),
            _count(row["flops"], 1e-9, "B"),
            "" if row["our_params"] is None else f"{row['our_params']:,}",
            "" if row["our_macs"] is None else f"{row['our_macs']:,}",
        ]
        for row in document["rows"]
    ]
    return "\n\n".join(
        [
            "# Accuracy against parameters and FLOPs, as published",
            f"Source: {document['source']}. Its FLOPs are multiply-accumulates. Each EfficientNet comes before the "
            "networks that the paper compares with it; our counts of these models are exact.",
            table(
                ["network", "top-1, %", "parameters", "FLOPs", "our parameters", "our MACs"], lines
            ),
            f"![accuracy against parameters and FLOPs]({document['study']}.png)",
        ]
    )


def _count(number: float | None, factor: float, unit: str) -> str:
    return "not printed" if number is None else f"{number * factor:g}{unit}"


def draw(document: Document, figure: Any) -> None:
    """Both figures side by side: the EfficientNets as a line, the others as points."""
    figure.set_size_inches(*SIZE)
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    for axes, (quantity, title, factor) in zip(panels, _PANELS, strict=True):
        rows = [row for row in document["rows"] if row[quantity] is not None]
        own = [row for row in rows if row["efficientnet"]]
        others = [row for row in rows if not row["efficientnet"]]
        points = [row[quantity] * factor for row in own]
        axes.plot(points, _heights(own), "o-", color="tab:red", label="EfficientNet", zorder=3)
        for row, x in zip(own, points, strict=True):
            name = row["network"].removeprefix("EfficientNet-")
            axes.annotate(
                name,
                (x, row["top1"]),
                (-5, 5),
                textcoords="offset points",
                ha="right",
                fontsize=9,
                color="tab:red",
            )
        points = [row[quantity] * factor for row in others]
        axes.plot(points, _heights(others), "s", color="0.35", markersize=5, label="others")
        for row, x in zip(others, points, strict=True):
            _name(axes, row, x)
        axes.set_xscale("log")
        axes.set_xticks(_TICKS[quantity], [f"{tick:g}" for tick in _TICKS[quantity]])
        axes.minorticks_off()
        axes.margins(x=0.13)
        axes.set_xlabel(title)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("top-1 accuracy on ImageNet as published, %")
    panels[0].legend(loc="lower right")


def _heights(rows: Sequence[dict[str, Any]]) -> list[float]:
    return [row["top1"] for row in rows]


# Networks at nearly the same place, whose names would cover each other: to the left, and up or down in points.
_LEFT = ("PNASNet", "AmoebaNet-A", "NASNet-A", "AmoebaNet-C", "DenseNet-264")
_MOVED = {
    "Inception-v4": -7,
    "Inception-ResNet-v2": 4,
    "PNASNet": 5,
    "AmoebaNet-A": 0,
    "NASNet-A": -5,
}


def _name(axes: Any, row: dict[str, Any], x: float) -> None:
    left = row["network"] in _LEFT
    axes.annotate(
        row["network"],
        (x, row["top1"]),
        (-6 if left else 6, _MOVED.get(row["network"], -1) - 3),
        textcoords="offset points",
        ha="right" if left else "left",
        fontsize=8,
        color="0.25",
    )
