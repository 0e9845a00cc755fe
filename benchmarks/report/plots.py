"""The plots of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import catalogue
from benchmarks.cases.networks import short_name
from benchmarks.harness.alternate import spread
from benchmarks.report.results import Outcome, Report, Row, families

_COLOURS = {
    "effkernels": "#c0392b",
    "onnxruntime": "#2c6fbb",
    "openvino": "#6a4fa3",
    "torch.compile": "#e08e0b",
    "eager": "#8a8f98",
    "torch.mm": "#2e8b57",
}
_OTHER = "#444444"


def draw(report: Report, folder: Path) -> list[Path]:
    """Write every plot for which the report has timed rows; returns their files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(_STYLE):
        for name, suites, picture in _PICTURES:
            rows = [row for suite in suites for row in report.of(suite) if row.timed()]
            if not rows:
                continue
            figure = picture(pyplot, rows)
            if figure is None:
                continue
            place = f"{report.place}; {report.started[:10]}"
            figure.supxlabel(place, x=0.99, ha="right", fontsize=7, color="#666666")
            path = folder / f"{name}.png"
            figure.savefig(path)
            pyplot.close(figure)
            written.append(path)
    return written


_STYLE: Any = {
    "figure.dpi": 130,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "font.size": 8,
    "legend.frameon": False,
}


def _colour(outcome: Outcome) -> str:
    return _COLOURS.get(outcome.family, _OTHER)


def _networks(pyplot: Any, rows: Sequence[Row]) -> Any:
    """Bars of every contestant, fastest first, one panel per network."""
    columns = min(len(rows), 2)
    lines = -(-len(rows) // columns)
    tallest = max(len(row.outcomes) for row in rows)
    size = (5.2 * columns, (0.7 + 0.26 * tallest) * lines + 0.5)
    figure, panels = pyplot.subplots(lines, columns, figsize=size, squeeze=False)
    for panel in panels.flat[len(rows) :]:
        panel.set_axis_off()
    for panel, row in zip(panels.flat, rows, strict=False):
        timed = sorted(row.timed(), key=lambda o: spread(o.rounds).median)
        spreads = [spread(o.rounds) for o in timed]
        medians = [1e3 * s.median for s in spreads]
        whiskers = [
            [1e3 * (s.median - s.low) for s in spreads],
            [1e3 * (s.high - s.median) for s in spreads],
        ]
        colours = [_colour(o) for o in timed]
        places = range(len(timed))
        panel.barh(places, medians, xerr=whiskers, color=colours, error_kw={"lw": 0.8})
        for place, outcome, median, high in zip(
            places, timed, medians, [1e3 * s.high for s in spreads], strict=True
        ):
            ratio = row.speedup(outcome)
            times = (
                ""
                if ratio is None or outcome.contestant == "effkernels"
                else f"  {ratio.median:.2f}x"
            )
            panel.text(high, place, f"  {median:.3g} ms{times}", va="center", fontsize=7)
        panel.set_yticks(list(places), [o.contestant for o in timed])
        panel.invert_yaxis()
        panel.margins(x=0.35)
        panel.set_xlim(left=0)
        panel.set_title(row.title)
        panel.set_xlabel("milliseconds")
    figure.suptitle(
        "Time (whiskers: quartiles), and how many times as fast effkernels is", fontsize=9
    )
    return figure


def _share_of_bound(pyplot: Any, rows: Sequence[Row]) -> Any:
    """The share of the bound that effkernels and eager's best layout reach, for each layer shape."""
    figure, panel = pyplot.subplots(figsize=(max(6.0, 0.36 * len(rows) + 2), 4.2))
    places = list(range(len(rows)))
    for shift, family in ((-0.2, "effkernels"), (0.2, "eager")):
        best = [row.best(family) for row in rows]
        shares = [
            100 * ((row.share_of_bound(o) or 0.0) if o is not None else 0.0)
            for row, o in zip(rows, best, strict=True)
        ]
        label = family if family == "effkernels" else f"{family}, its best layout"
        panel.bar([p + shift for p in places], shares, 0.4, color=_COLOURS[family], label=label)
    kinds = [f"{row.title}  ({(row.bound_kind or '')[:3]})" for row in rows]
    panel.set_xticks(places, kinds, rotation=60, ha="right", fontsize=7)
    panel.axhline(100, color="#222222", lw=0.8)
    panel.set_ylabel("percent of the bound reached")
    panel.set_title("Share of the bound (mem: bytes at copy speed; ari: multiply-adds)")
    panel.legend()
    return figure


def _growth(pyplot: Any, rows: Sequence[Row], *, by: str, label: str) -> Any:
    """Latency and throughput against batch or resolution."""
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 3.8))
    for panel, throughput in zip(panels, (False, True), strict=True):
        _growth_panel(panel, rows, by=by, label=label, throughput=throughput)
    return figure


def _growth_panel(
    panel: Any, rows: Sequence[Row], *, by: str, label: str, throughput: bool
) -> None:
    """One line per family."""
    from matplotlib import ticker

    for family in ("effkernels", *families(rows)):
        found = [(row, o) for row in rows if (o := row.best(family)) is not None]
        spreads = [(row, spread(o.rounds)) for row, o in found]
        scale: Callable[[Row, float], float] = (
            (lambda row, s: row.images / s) if throughput else (lambda row, s: 1e3 * s)
        )
        x = [row.case[by] for row, _ in spreads]
        colour = _COLOURS.get(family, _OTHER)
        panel.plot(
            x, [scale(r, s.median) for r, s in spreads], "o-", ms=4, color=colour, label=family
        )
        panel.fill_between(
            x,
            [scale(r, s.low) for r, s in spreads],
            [scale(r, s.high) for r, s in spreads],
            color=colour,
            alpha=0.15,
            lw=0,
        )
    panel.set_xscale("log", base=2)
    ticks = sorted({row.case[by] for row in rows})
    panel.set_xticks(ticks, [str(tick) for tick in ticks], rotation=45 if len(ticks) > 8 else 0)
    panel.minorticks_off()
    panel.set_xlabel(label)
    if throughput:
        panel.set_ylim(bottom=0)
    else:
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(ticker.NullFormatter())
    panel.set_ylabel("images/s" if throughput else "milliseconds")
    what = "throughput" if throughput else "latency"
    panel.set_title(f"{short_name(rows[0].case['model'])}: {what} against {label}")
    panel.grid(alpha=0.25)
    panel.legend()


def _against_batch(pyplot: Any, rows: Sequence[Row]) -> Any:
    return _growth(pyplot, rows, by="batch", label="batch")


def _against_resolution(pyplot: Any, rows: Sequence[Row]) -> Any:
    return _growth(pyplot, rows, by="resolution", label="resolution in pixels")


def _memory_against_batch(pyplot: Any, rows: Sequence[Row]) -> Any:
    """One line per contestant."""
    figure, panel = pyplot.subplots(figsize=(6, 3.8))
    for first in rows[0].outcomes:
        found = [(row.case["batch"], row.outcome(first.contestant)) for row in rows]
        points = [(batch, o.peak_bytes / 1e6) for batch, o in found if o and o.peak_bytes]
        if not points:
            continue
        panel.plot(*zip(*points, strict=True), "o-", ms=4, color=_colour(first), label=first.family)
    batches = sorted(row.case["batch"] for row in rows)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(batches, [str(batch) for batch in batches])
    panel.minorticks_off()
    panel.yaxis.set_major_formatter("{x:g}")
    panel.set_xlabel("batch")
    panel.set_ylabel("MB without weights and input")
    panel.set_title(f"{short_name(rows[0].case['model'])}: peak memory against batch")
    panel.grid(alpha=0.25)
    panel.legend()
    return figure


_LABELLED = 6


def _bound_and_measured(pyplot: Any, rows: Sequence[Row]) -> Any:
    """Every row's time against its bound; the layers that are farthest from it are named."""
    found = [(row, o) for row in rows if row.bound and (o := row.best("effkernels")) is not None]
    if not found:
        return None
    figure, panel = pyplot.subplots(figsize=(6, 5))
    for suite in dict.fromkeys(row.suite for row, _ in found):
        bounds = [1e6 * (row.bound or 0.0) for row, _ in found if row.suite == suite]
        times = [1e6 * spread(o.rounds).median for row, o in found if row.suite == suite]
        panel.plot(bounds, times, "o", ms=4, alpha=0.7, label=suite)
    ends = [1e6 * f(row.bound or 0.0 for row, _ in found) for f in (min, max)]
    for times_as_long in (1, 2, 5, 10):
        line = [times_as_long * end for end in ends]
        panel.plot(ends, line, color="#bbbbbb", lw=0.8, zorder=0)
        panel.text(ends[1], line[1], f" {times_as_long}x", fontsize=7, color="#888888", va="center")
    layers = [(row, o) for row, o in found if row.suite in _LAYERS]
    lost = {row.key: spread(o.rounds).median - (row.bound or 0.0) for row, o in layers}
    worst = sorted(layers, key=lambda pair: -lost[pair[0].key])[:_LABELLED]
    for number, (row, o) in enumerate(worst, start=1):
        at = 1e6 * (row.bound or 0.0), 1e6 * spread(o.rounds).median
        panel.annotate(str(number), at, xytext=(-3, 4), textcoords="offset points", fontsize=7)
    names = "\n".join(f"{number}  {row.title}" for number, (row, _) in enumerate(worst, start=1))
    panel.text(0.98, 0.03, names, transform=panel.transAxes, ha="right", va="bottom", fontsize=7)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("bound in microseconds: the larger of bytes and multiply-adds")
    panel.set_ylabel("effkernels' time in microseconds")
    panel.set_title("Time against bound; named: the layers farthest from it")
    panel.grid(alpha=0.25)
    panel.legend()
    return figure


_LAYERS = tuple(name for name, suite in catalogue().items() if suite.table == "layers")
_TIMED = ("networks", *_LAYERS, "batch", "resolution")
_PICTURES: tuple[tuple[str, tuple[str, ...], Callable[[Any, Sequence[Row]], Any]], ...] = (
    ("networks", ("networks",), _networks),
    ("depthwise", ("depthwise",), _share_of_bound),
    ("pointwise", ("pointwise",), _share_of_bound),
    ("squeeze", ("squeeze",), _share_of_bound),
    ("blocks", ("stem", "block"), _share_of_bound),
    ("batch", ("batch",), _against_batch),
    ("resolution", ("resolution",), _against_resolution),
    ("memory", ("batch-memory",), _memory_against_batch),
    ("bound", _TIMED, _bound_and_measured),
)
