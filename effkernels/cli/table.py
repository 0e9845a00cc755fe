"""``effkernels table``: our B0-B7 compared with the paper's Table 2."""

from __future__ import annotations

from dataclasses import asdict

from effkernels.analysis.paper import TableRow, table_rows
from effkernels.cli.output import billions, console, millions, number_table, print_json, print_wide

SOURCE = "Tan and Le 2019, arXiv 1905.11946, Table 2"


def table(*, as_json: bool) -> None:
    """Print the paper's Table 2 with our counts; see ``effkernels table --help``."""
    rows = table_rows()
    if as_json:
        print_json({"source": SOURCE, "rows": [asdict(row) for row in rows]})
        return
    grid = number_table(
        ["network"], ["top-1", "top-5", "params", "ratio", "ours", "FLOPs", "ratio", "ours"]
    )
    for row in rows:
        grid.add_row(*_cells(row), style="bold" if row.published.is_efficientnet else "")
    out = console()
    print_wide(grid)
    out.print(
        f"\n{SOURCE}: ImageNet accuracy in percent; parameters, FLOPs (multiply-accumulates) and "
        "ratios to the group's EfficientNet as printed there. 'ours': our model's exact count, and "
        "for the other networks their printed count divided by it."
    )


def _cells(row: TableRow) -> list[str]:
    paper = row.published
    ours = paper.is_efficientnet
    return [
        paper.network if ours else f"  {paper.network}",
        f"{paper.top1:.1f}",
        f"{paper.top5:.1f}",
        f"{_two_digits(paper.params / 1e6)}M",
        _ratio(paper.params_ratio),
        millions(row.params) if row.params is not None else _ratio(row.params_ratio),
        "-" if paper.flops is None else f"{_two_digits(paper.flops / 1e9)}B",
        _ratio(paper.flops_ratio),
        billions(row.macs) if row.macs is not None else _ratio(row.macs_ratio),
    ]


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{_two_digits(ratio)}x"


def _two_digits(number: float) -> str:
    """At least two digits, as the paper prints counts: 0.39, 5.3, 26, 146."""
    for limit, decimals in ((0.995, 2), (9.95, 1)):
        if number < limit:
            return f"{number:.{decimals}f}"
    return f"{number:.0f}"
