"""``python -m benchmarks.readme``: write the README's performance table from the stored reports.

``--check`` changes nothing, and fails if the README differs from the reports.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks import ROOT
from benchmarks.harness.alternate import spread
from benchmarks.report.results import Report, Row, families
from benchmarks.report.tables import duration, size, table
from benchmarks.run import JSON, RESULTS

BEGIN = "<!-- benchmarks: written by python -m benchmarks.readme -->"
END = "<!-- benchmarks: end -->"
OURS = ("effkernels", "effkernels-graph")
"""Our contestants with a column, if they took part; ratios refer to the faster one."""
RIVALS = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
    "torch.compile": "torch.compile's best",
    "eager": "eager's best layout",
    "eager, CUDA graph": "eager, CUDA graph",
}
_VERSIONS = (("torch", "PyTorch"), ("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO"))
_LAYERS = {
    "depthwise": "Depthwise convolutions",
    "squeeze": "Squeeze-excitations",
    "block": "Whole blocks",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only check whether they agree")
    options = parser.parse_args(arguments)
    readme = ROOT / "README.md"
    problem = disagreement(readme.read_text(), stored())
    if options.check:
        print(problem or "README.md and the stored reports agree")
        return int(problem is not None)
    readme.write_text(updated(readme.read_text(), stored()))
    return 0


def stored(folder: Path = RESULTS) -> dict[str, Report]:
    """The stored reports, by the name of their folder."""
    return {path.parent.name: Report.load(path) for path in sorted(folder.glob(f"*/{JSON}"))}


def block(reports: dict[str, Report]) -> str:
    """The text between the markers."""
    return "\n\n".join(_machine(name, report) for name, report in reports.items())


def updated(readme: str, reports: dict[str, Report]) -> str:
    """The README with the tables of these reports between its markers.

    Raises:
        ValueError: the README has no markers.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md lacks the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{block(reports)}\n\n{END}{after}"


def disagreement(readme: str, reports: dict[str, Report]) -> str | None:
    """Why the README does not match the stored reports; None if it does."""
    if BEGIN not in readme:
        return "README.md lacks the tables of the stored reports" if reports else None
    if readme == updated(readme, reports):
        return None
    return "README.md differs from the stored reports: run python -m benchmarks.readme"


def _machine(name: str, report: Report) -> str:
    rows = [*report.of("networks"), *report.of("low-precision")]
    present = families(rows)
    rivals = [family for family in RIVALS if family in present]
    ours = [own for own in OURS if any(row.outcome(own) for row in rows)]
    lines = [
        [row.title, *[_time(row, own) for own in ours], *[_rival(row, f, ours) for f in rivals]]
        for row in rows
    ]
    versions = report.machine["versions"]
    named = ", ".join(f"{title} {versions[p]}" for p, title in _VERSIONS if versions.get(p))
    faster = "effkernels" if len(ours) < 2 else "the faster effkernels"
    parts = [
        f"{report.place}; {named}. Times are medians over alternating rounds (on a CPU, over the half "
        f"in which the machine was fastest); in brackets how many times as fast {faster} is, "
        f"as the median of the ratios within each round ([report](benchmarks/results/{name}/report.md)).",
        table(["", *ours, *[RIVALS[family] for family in rivals]], lines),
        _picture(name),
        *[_layers(report.of(suite), title) for suite, title in _LAYERS.items()],
        *[_memory(row) for row in report.of("memory")],
        *[_startup(row) for row in report.of("startup")],
    ]
    return "\n\n".join(part for part in parts if part)


def _picture(name: str) -> str:
    place = f"{RESULTS.relative_to(ROOT)}/{name}/networks.png"
    return f"![Bars of the times of all contestants]({place})" if (ROOT / place).exists() else ""


def _time(row: Row, contestant: str) -> str:
    outcome = row.outcome(contestant)
    taken = None if outcome is None else outcome.seconds
    return "" if taken is None else duration(taken.median)


def _rival(row: Row, family: str, ours: Sequence[str]) -> str:
    best = row.best(family)
    if best is None:
        return next((o.status for o in row.outcomes if o.family == family), "")
    mine = [o for own in ours if (o := row.outcome(own)) is not None and o.rounds]
    if not mine:
        return _time(row, best.contestant)
    fastest = min(mine, key=lambda o: spread(o.rounds).median)
    ratio = row.speedup(best, fastest.contestant)
    return _time(row, best.contestant) + ("" if ratio is None else f" ({ratio.median:.2f}x)")


def _layers(rows: Sequence[Row], title: str) -> str:
    ratios, shares, users = [], [], set()
    for row in rows:
        rival, mine = row.best("eager"), row.outcome("effkernels")
        ratio = None if rival is None else row.speedup(rival)
        share = None if mine is None else row.share_of_bound(mine)
        if ratio is not None and share is not None:
            ratios.append(ratio.median)
            shares.append(share)
            users |= set(row.case.get("used_by", ()))
    if not ratios:
        return ""
    return (
        f"{title} of {' and '.join(sorted(users))} ({len(ratios)} shapes): {min(ratios):.1f} to {max(ratios):.1f} "
        f"times as fast as eager's best layout ({statistics.geometric_mean(ratios):.1f} in the geometric mean), at "
        f"{min(shares):.0%} to {max(shares):.0%} of the memory or arithmetic bound."
    )


def _startup(row: Row) -> str:
    times = ", ".join(f"{o.contestant} {_time(row, o.contestant)}" for o in row.timed())
    return f"From a fresh interpreter's first import to the first logits of {row.title}: {times}."


def _memory(row: Row) -> str:
    peaks = {o.contestant: o.peak_bytes for o in row.outcomes if o.peak_bytes}
    if len(peaks) < 2 or "effkernels" not in peaks:
        return ""
    mine = peaks.pop("effkernels")
    others = ", ".join(f"{name} {size(peak)}" for name, peak in peaks.items())
    return f"Peak memory of a forward pass of {row.title}, without the weights: {size(mine)}; {others}."


if __name__ == "__main__":
    raise SystemExit(main())
