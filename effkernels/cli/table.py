"""``effkernels table``: our counts compared with the paper's Table 2, or with its Tables 3 and 7."""

from __future__ import annotations

from dataclasses import asdict

from effkernels.analysis.paper import TableRow, table_rows
from effkernels.analysis.scaled_baselines import ScaledRow, scaled_rows
from effkernels.cli.output import billions, console, millions, number_table, print_json, print_wide

_PAPER = "Tan and Le 2019, arXiv 1905.11946"
SOURCE = f"{_PAPER}, Table 2"
SCALED_SOURCE = f"{_PAPER}, Tables 3 and 7 (EfficientNet-B0)"


def table(*, scaled: bool, as_json: bool) -> None:
    """Print the paper's Table 2, or 3 and 7, with our counts; see ``effkernels table --help``."""
    if scaled:
        _scaled(scaled_rows(), as_json)
        return
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


def _scaled(rows: tuple[ScaledRow, ...], as_json: bool) -> None:
    if as_json:
        print_json({"source": SCALED_SOURCE, "rows": [asdict(row) for row in rows]})
        return
    grid = number_table(["network"], ["top-1", "FLOPs", "ours", "ratio", "params"])
    for row in rows:
        own = row.published.scaling == "none"
        grid.add_row(*_scaled_cells(row), style="bold" if own else "")
    ratios = [row.ratio for row in rows if row.ratio is not None]
    out = console()
    print_wide(grid)
    out.print(
        f"\n{SCALED_SOURCE}: ImageNet accuracy in percent and FLOPs (multiply-accumulates) as printed "
        "there, for factors of depth, width and resolution. 'ours': the exact multiply-accumulates of "
        "this package's network, scaled so, and 'params' its parameters; 'ratio': the printed FLOPs "
        f"over them, {min(ratios):.2f} to {max(ratios):.2f}: more than rounding explains, up to a fifth above "
        "the exact count. '-': the paper does not print the factors of that row."
    )


def _scaled_cells(row: ScaledRow) -> list[str]:
    paper = row.published
    name = paper.network
    if paper.scaling != "none":
        factors = zip(("depth", "width", "resolution"), paper.factors or (), strict=False)
        name = " ".join(f"{dimension} {factor:g}" for dimension, factor in factors if factor != 1.0)
        name = f"  {name or paper.scaling}"
    return [
        name,
        f"{paper.top1:.1f}",
        f"{paper.flops / 1e9:.1f}B",
        "-" if row.macs is None else billions(row.macs),
        "-" if row.ratio is None else f"{row.ratio:.2f}x",
        "-" if row.params is None else millions(row.params),
    ]


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{_two_digits(ratio)}x"


def _two_digits(number: float) -> str:
    """At least two digits, as the paper prints counts: 0.39, 5.3, 26, 146."""
    for limit, decimals in ((0.995, 2), (9.95, 1)):
        if number < limit:
            return f"{number:.{decimals}f}"
    return f"{number:.0f}"
