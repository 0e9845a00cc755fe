"""A report as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.cases import catalogue
from benchmarks.harness.alternate import Spread, spread
from benchmarks.harness.session import FOREIGN_LIMIT
from benchmarks.report.results import Outcome, Report, Row, families

AWAKE_LIMIT = 0.05
"""Processor time used while others were measured, per second, from which a row mentions it."""


def markdown(report: Report) -> str:
    """The whole report."""
    parts = ["# Benchmarks", *_preamble(report)]
    for name, suite in catalogue().items():
        rows = report.of(name)
        if rows:
            parts += [f"## {suite.heading}", *_TABLES[suite.table](rows)]
    return "\n\n".join(parts) + "\n"


def section(suite: str, rows: Sequence[Row]) -> str:
    """The rows of one suite."""
    return "\n\n".join(_TABLES[catalogue()[suite].table](rows))


def duration(seconds: float) -> str:
    """A duration with three digits and a unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{_three(seconds / scale)} {unit}"
    return f"{_three(seconds / 1e-6)} us"


def size(count: int) -> str:
    """Bytes with a unit."""
    return f"{_three(count / 1e6)} MB" if count >= 1e6 else f"{_three(count / 1e3)} kB"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))


def result(outcome: Outcome | None) -> str:
    """The median time or, without one, the reason."""
    if outcome is None:
        return ""
    if outcome.seconds is not None:
        return duration(outcome.seconds.median)
    return f"**{outcome.status}**: {outcome.reason}".replace("|", "/")


def speedup(row: Row, over: Outcome | None) -> str:
    """How many times as fast as ``over`` effkernels is."""
    ratio = None if over is None else row.speedup(over)
    return "" if ratio is None else f"{ratio.median:.2f}x"


def absences(rows: Sequence[Row]) -> list[str]:
    """Contestants without a time, and the reason, once each."""
    said = [
        f"- {o.contestant}: {o.status}: {o.reason}"
        for row in rows
        for o in row.outcomes
        if o.status != "ok"
    ]
    return list(dict.fromkeys(said))


def disturbances(rows: Sequence[Row]) -> list[str]:
    """What makes rows doubtful: ours without kernels, contestants that did not sleep, other programs."""
    ours = [o for row in rows for o in row.outcomes if o.family == "effkernels"]
    said = []
    if any(o.details.get("backends") == ["torch"] for o in ours):
        said.append("- effkernels ran only on plain PyTorch: no backend of its own was available")
    for row in rows:
        said += [
            f"- {o.contestant} used {o.awake:.0%} of a core while others were measured ({row.title})"
            for o in row.outcomes
            if o.awake > AWAKE_LIMIT
        ]
        if row.foreign > FOREIGN_LIMIT:
            said.append(
                f"- other programs used {row.foreign:.0%} of a core while {row.title} was measured: "
                f"measure it again"
            )
    return said


def _preamble(report: Report) -> list[str]:
    machine, ours = report.machine, report.machine["effkernels"]
    versions = ", ".join(f"{k} {v or 'missing'}" for k, v in machine["versions"].items())
    running = [name for name, why in ours["backends"].items() if why == "available"]
    unavailable = [f"{k}: {why}" for k, why in ours["backends"].items() if why != "available"]
    lines = [
        f"{report.place}; {machine['platform']}; {report.started}; commit {machine['commit']}.",
        f"{versions}; Python {machine['python']}.",
        f"effkernels' backends: {', '.join(running)}"
        + (f" ({'; '.join(unavailable)})" if unavailable else "")
        + f"; instruction sets {ours['instruction_sets']}.",
        "Each contestant runs in a process of its own, one awake at a time, in alternating rounds. On a CPU only the "
        "half of the rounds counts in which a fixed piece of work between the turns was fastest. Times "
        "are medians over the rounds, brackets quartiles; ratios are medians of the ratios within each round. "
        "Single layers on a GPU run in a CUDA graph of calls on alternating inputs, because calling from Python takes "
        "longer. A contestant is timed only after its result matched the float64 one.",
    ]
    if report.limits:
        curve = report.limits["bandwidth"]
        speeds = ", ".join(f"{size(n)}: {speed / 1e9:.0f}" for n, speed in curve)
        lines.append(
            f"Limits measured in this run: {report.limits['flops'] / 1e9:.0f} GFLOP/s (the fastest dense "
            f"product or convolution); GB/s of a copy, by the bytes it moves: {speeds}. The bound of a row is the "
            f"larger of its bytes at the speed of a copy of that size and its arithmetic; activations are not counted."
        )
    return lines


# Details that outcomes on a GPU may have: heading, and how it is formatted.
_COUNTED: dict[str, tuple[str, Callable[[Row, int], str]]] = {
    "launches": ("launches per image", lambda row, count: _three(count / row.images)),
    "peak_bytes": ("peak memory", lambda _, count: size(count)),
}


def _networks(rows: Sequence[Row]) -> list[str]:
    parts = []
    counted = [name for name in _COUNTED if any(name in o.details for r in rows for o in r.timed())]
    head = ["", "time", "quartiles", "images/s", "effkernels is", "share of bound"]
    head += [_COUNTED[name][0] for name in counted]
    for row in rows:
        lines = []
        for outcome in row.outcomes:
            taken, ratio = outcome.seconds, row.speedup(outcome)
            if taken is None:
                lines.append([outcome.contestant, result(outcome), *[""] * (len(head) - 2)])
                continue
            shown = (
                _COUNTED[name][1](row, outcome.details[name]) if name in outcome.details else ""
                for name in counted
            )
            lines.append(
                [
                    outcome.contestant,
                    duration(taken.median),
                    _quartiles(taken, duration),
                    _three(row.images / taken.median),
                    ""
                    if ratio is None
                    else f"{ratio.median:.2f}x {_quartiles(ratio, '{:.2f}'.format)}",
                    _percent(row.share_of_bound(outcome)),
                    *shown,
                ]
            )
        bound = f" ({size(row.bytes)}, {row.macs / 1e9:.2f} GMACs" + (
            f"; bound {duration(row.bound)}, {row.bound_kind})" if row.bound else ")"
        )
        parts += [f"**{row.title}**{bound}", table(head, lines), *_against(row)]
    return [*parts, *_notes(rows, named=True)]


def _against(row: Row) -> list[str]:
    """How many times as fast effkernels is as eager's best, and as the fastest other contestant."""
    others = [best for family in families([row]) if (best := row.best(family)) is not None]
    eager = row.best("eager")
    best = min(others, key=lambda o: spread(o.rounds).median, default=None)
    if row.outcome("effkernels") is None or eager is None or best is None:
        return []
    return [
        f"effkernels is {speedup(row, eager)} as fast as eager's best ({eager.contestant}), "
        f"{speedup(row, best)} as fast as the best other ({best.contestant})."
    ]


def _layers(rows: Sequence[Row]) -> list[str]:
    names = [o.contestant for o in rows[0].outcomes if o.family != "effkernels"]
    head = ["", "of", "effkernels", *names]
    head += [f"times {name}" for name in names] + ["bytes", "bound", "share of bound"]
    lines = []
    for row in rows:
        mine = row.outcome("effkernels")
        others = [row.outcome(name) for name in names]
        lines.append(
            [
                row.title,
                " ".join(row.case.get("used_by", ())),
                result(mine),
                *[result(other) for other in others],
                *[speedup(row, other) for other in others],
                size(row.bytes),
                f"{duration(row.bound)}, {row.bound_kind}" if row.bound else "",
                _percent(None if mine is None else row.share_of_bound(mine)),
            ]
        )
    return [table(head, lines), *_notes(rows)]


def _growth(rows: Sequence[Row]) -> list[str]:
    rivals = families(rows)
    head = ["", "effkernels", "images/s", *rivals, *[f"times {name}" for name in rivals]]
    lines = []
    for row in rows:
        mine = row.outcome("effkernels")
        taken = None if mine is None else mine.seconds
        others = [row.best(rival) for rival in rivals]
        lines.append(
            [
                row.title,
                result(mine),
                "" if taken is None else _three(row.images / taken.median),
                *[result(other) for other in others],
                *[speedup(row, other) for other in others],
            ]
        )
    return [table(head, lines), *_notes(rows)]


def _startup(rows: Sequence[Row]) -> list[str]:
    parts = []
    for row in rows:
        lines = [
            [
                outcome.contestant,
                result(outcome),
                speedup(row, outcome),
                ", ".join(
                    f"{name.removeprefix('seconds of ')} {duration(seconds)}"
                    for name, seconds in outcome.details.items()
                ),
            ]
            for outcome in row.outcomes
        ]
        head = ["", "until the first logits", "effkernels is", "steps, and a second pass"]
        parts += [f"**{row.title}**", table(head, lines)]
    return [
        *parts,
        "Seconds of a fresh interpreter from its first import on: imports, a model with fresh weights, its first "
        "pass. ONNX Runtime reads an exported file.",
        *_notes(rows),
    ]


def _host(rows: Sequence[Row]) -> list[str]:
    lines = [
        [
            row.title,
            outcome.contestant,
            result(outcome),
            "" if spent is None else _quartiles(spent, duration),
        ]
        for row in rows
        for outcome in row.outcomes
        for spent in (outcome.seconds,)
    ]
    return [
        table(["", "", "until the call returns", "quartiles"], lines),
        "On a CPU with kernels that only allocate their results; on a GPU that is idle before each pass, "
        "without waiting for it.",
        *_notes(rows),
    ]


_METERS = {
    "cpu": "How far the resident peak (VmHWM) of a fresh process rises during one forward pass above its resident "
    "size with weights and input loaded, after a forward pass of a 32 x 32 image; the median of three.",
    "cuda": "How far the memory that PyTorch's allocator has handed out on the GPU rises during one forward pass in a "
    "fresh process above weights and input, after a forward pass of a 32 x 32 image; the median of three.",
}


def _memory(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        mine = row.outcome("effkernels")
        for outcome in row.outcomes:
            ratio = ""
            if mine is not None and mine.peak_bytes and outcome.peak_bytes:
                ratio = f"{mine.peak_bytes / outcome.peak_bytes:.2f}"
            peak = size(outcome.peak_bytes) if outcome.peak_bytes else result(outcome)
            lines.append([row.title, outcome.contestant, peak, ratio])
    return [
        table(["", "", "peak", "effkernels' share of it"], lines),
        _METERS[rows[0].case["device"]["kind"]],
        *_notes(rows),
    ]


def _notes(rows: Sequence[Row], *, named: bool = False) -> list[str]:
    """Remarks on the rows; ``named``: the table already has a line for each missing contestant."""
    said = [*([] if named else absences(rows)), *disturbances(rows)]
    return ["\n".join(said)] if said else []


def _quartiles(values: Spread, shown: Callable[[float], str]) -> str:
    return f"[{shown(values.low)}, {shown(values.high)}]"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _three(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


_TABLES: dict[str, Callable[[Sequence[Row]], list[str]]] = {
    "networks": _networks,
    "layers": _layers,
    "growth": _growth,
    "memory": _memory,
    "startup": _startup,
    "host": _host,
}
"""The functions that format a suite's rows, by the name that the suite gives."""
