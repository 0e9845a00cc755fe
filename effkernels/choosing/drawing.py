"""A choice as a picture: accuracy over what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effkernels.analysis.choice import Candidate, Quantity
from effkernels.choosing import Choice
from effkernels.choosing.beside import Beside
from effkernels.train.extras import need

# Of each quantity: its name with a unit, the factor to that unit, and the unit behind a number.
_AXES: dict[Quantity, tuple[str, float, str]] = {
    "latency": ("latency in ms", 1e3, " ms"),
    "memory": ("memory in MB", 1e-6, " MB"),
    "macs": ("MACs of one image in 10^9", 1e-9, " * 10^9"),
    "parameters": ("parameters in 10^6", 1e-6, " * 10^6"),
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
    title, factor, unit = _AXES[quantity]
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
    axes.axvline(
        limit, color="black", linestyle="--", linewidth=1, label=f"limit {limit:.4g}{unit}"
    )
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
    axes.set_title(_calls(choice))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def _calls(measured: Choice | Beside) -> str:
    """What was timed, in words."""
    images = "1 image" if measured.batch_size == 1 else f"{measured.batch_size} images"
    plural = "" if measured.threads == 1 else "s"
    threads = f", {measured.threads} thread{plural}" if measured.device.type == "cpu" else ""
    dtype = str(measured.dtype).removeprefix("torch.")
    return f"{images} of {dtype} on {measured.device}{threads}"


def draw_beside(found: Beside, path: Path) -> None:
    """The latency of each network as a bar, and beside them those that the paper printed, where it has the pair.

    Whiskers are quartiles.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figures = need("matplotlib.figure", "a picture of two networks")
    figure = figures.Figure(figsize=(11, 3.6), layout="constrained")
    panels = 1 if found.published is None else 2
    measured, *printed = figure.subplots(1, panels, squeeze=False)[0]
    names = [f"{row.model}\n({row.by})" for row in found.rows]
    bars = [1e3 * row.latency.median for row in found.rows]
    below = [1e3 * (row.latency.median - row.latency.low) for row in found.rows]
    above = [1e3 * (row.latency.high - row.latency.median) for row in found.rows]
    times = f"{found.other.model}: {found.ratio.median:.1f} times {found.ours.model}"
    title = f"measured: {_calls(found)}\n{times}"
    _bars(measured, names, bars, title, (below, above))
    if found.published is not None:
        row = found.published
        title = f"published: 1 image, 1 core of a Xeon E5-2690\n{row.other}: {row.ratio} times {row.model}"
        heights = [1e3 * row.seconds, 1e3 * row.other_seconds]
        _bars(printed[0], [row.model, row.other], heights, title)
    figure.savefig(path, dpi=120)


def _bars(
    axes: Any,
    names: list[str],
    values: list[float],
    title: str,
    whiskers: tuple[list[float], list[float]] | None = None,
) -> None:
    """Bars with their values behind them; ``whiskers`` are how far they reach below and above each value."""
    colours = ["tab:red", *["0.6"] * (len(names) - 1)]
    bars = axes.barh(names, values, color=colours, capsize=3, xerr=whiskers)
    labels = [f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms" for value in values]
    axes.bar_label(bars, labels, padding=6)
    above = [0.0] * len(values) if whiskers is None else whiskers[1]
    axes.set_xlim(0, 1.25 * max(map(sum, zip(values, above, strict=True))))
    axes.invert_yaxis()
    axes.set_xlabel("latency in ms")
    axes.set_title(title, fontsize=10)


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
