"""A choice as a picture: accuracy over what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effkernels.analysis.choice import Candidate, Quantity
from effkernels.choosing import Choice
from effkernels.train.extras import need

# Of each quantity: its name with a unit, and the factor to that unit.
_AXES: dict[Quantity, tuple[str, float]] = {
    "latency": ("latency in ms", 1e3),
    "memory": ("memory in MB", 1e-6),
    "macs": ("MACs of one image in 10^9", 1e-9),
    "parameters": ("parameters in 10^6", 1e-6),
}
_FAMILIES = (("EfficientNet", "tab:red", "o"), ("EfficientNet-Lite", "tab:blue", "s"))


def draw(choice: Choice, path: Path) -> None:
    """Published accuracy over the quantity that is limited, with the limit and the Pareto front.

    Candidates at sizes without a published accuracy are ticks at the bottom. Whiskers are quartiles.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figures = need("matplotlib.figure", "a picture of the choice")
    quantity = choice.limits.axis
    title, factor = _AXES[quantity]
    figure = figures.Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in choice.rows if row.amount(quantity) is not None]
    for family, colour, marker in _FAMILIES:
        members = [row for row in rows if ("lite" in row.model) == family.endswith("Lite")]
        if members:
            _draw_family(axes, members, quantity, factor, family, colour, marker)
    front = sorted(
        ((row.amount(quantity) or 0.0) * factor, row.accuracy.top1)
        for row in rows
        if row.on_front and row.accuracy is not None
    )
    if front:
        axes.plot(*zip(*front, strict=True), color="0.4", linewidth=1, zorder=1, label="front")
    limit = choice.limits.given()[quantity] * factor
    axes.axvline(limit, color="black", linestyle="--", linewidth=1, label=f"limit {limit:.4g}")
    best = choice.best
    if best is not None and best.accuracy is not None:
        axes.scatter(
            [(best.amount(quantity) or 0.0) * factor],
            [best.accuracy.top1],
            s=160,
            facecolors="none",
            edgecolors="black",
            linewidths=1.5,
            label="chosen",
        )
    axes.set_xscale("log")
    ticks = need("matplotlib.ticker", "a picture of the choice")
    axes.xaxis.set_major_locator(ticks.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel(title)
    axes.set_ylabel("published top-1 accuracy in percent")
    images = "1 image" if choice.batch_size == 1 else f"{choice.batch_size} images"
    plural = "" if choice.threads == 1 else "s"
    threads = f", {choice.threads} thread{plural}" if choice.device.type == "cpu" else ""
    dtype = str(choice.dtype).removeprefix("torch.")
    axes.set_title(f"{images} of {dtype} on {choice.device}{threads}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def _draw_family(
    axes: Any,
    rows: Sequence[Candidate],
    quantity: Quantity,
    factor: float,
    family: str,
    colour: str,
    marker: str,
) -> None:
    known = [(row, row.accuracy.top1) for row in rows if row.accuracy is not None]
    amounts = [(row.amount(quantity) or 0.0) * factor for row, _ in known]
    heights = [top1 for _, top1 in known]
    axes.scatter(amounts, heights, color=colour, marker=marker, label=family, zorder=2)
    for (row, top1), amount in zip(known, amounts, strict=True):
        if quantity == "latency" and row.latency is not None:
            ends = [row.latency.low * factor, row.latency.high * factor]
            axes.plot(ends, [top1, top1], color=colour, linewidth=1)
        short = row.model.removeprefix("efficientnet_")
        label = short if row.own else f"{short} at {row.resolution}"
        axes.annotate(label, (amount, top1), (4, 4), textcoords="offset points", fontsize=8)
    unknown = [(row.amount(quantity) or 0.0) * factor for row in rows if row.accuracy is None]
    bottom = axes.get_xaxis_transform()
    axes.plot(unknown, [0.0] * len(unknown), "|", color=colour, transform=bottom, markersize=14)
