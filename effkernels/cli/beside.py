"""``effkernels choose --beside``: a model beside a network of torchvision's."""

from __future__ import annotations

from pathlib import Path

import torch

import effkernels
from effkernels.analysis.paper import TABLE_4
from effkernels.choosing.beside import Beside, Timed, measure_beside
from effkernels.choosing.drawing import draw_beside
from effkernels.cli.output import console, millions, number_table, print_json, print_wide, printable
from effkernels.cli.progress import progress_bar

_MODEL = "efficientnet_b1"
_PAPER = "Tan and Le 2019, Table 4: one core of a Xeon E5-2690, one picture, the mean of 20 runs"


def beside(
    other: str,
    *,
    model: list[str] | None,
    batch_size: int,
    dtype: torch.dtype,
    device: torch.device,
    why: str,
    seconds: float,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure and print two networks; see ``effkernels choose --help``."""
    if model is not None and len(model) > 1:
        raise ValueError(f"--beside takes one --model, got {len(model)}")
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=None)
        found = measure_beside(
            other,
            model[0] if model else _MODEL,
            device=device,
            batch_size=batch_size,
            dtype=dtype,
            seconds=seconds,
            watch=lambda name: bar.update(task, description=name),
        )
    if output is not None:
        draw_beside(found, output)
    if as_json:
        versions = {"effkernels": effkernels.__version__, "torch": torch.__version__}
        print_json({"versions": versions, **found.as_dict()})
        return
    _print(found, why, output)


def _print(found: Beside, why: str, output: Path | None) -> None:
    grid = number_table(["model", "by", "run"], ["pixels", "params", "ms", "quartiles"])
    for row in found.rows:
        grid.add_row(*_cells(row))
    print_wide(grid)
    images = "1 image" if found.batch_size == 1 else f"{found.batch_size} images"
    threads = "1 thread, " if found.threads == 1 else f"{found.threads} threads, "
    threads = threads if found.device.type == "cpu" else ""
    lines = [
        f"ms: median of {found.rounds} rounds in turns on {found.device} ({found.machine}, {threads}{why}), {images}. "
        "Random weights.",
        _compared(found),
        *_published(found),
    ]
    if output is not None:
        lines.append(f"written to {output}")
    out = console()
    out.print()
    for line in lines:
        out.print(printable(line), soft_wrap=True)


def _compared(found: Beside) -> str:
    ratio = found.ratio
    text = (
        f"{found.other.model} takes {ratio.median:.2f} times as long as {found.ours.model} (quartiles "
        f"{ratio.low:.2f} to {ratio.high:.2f})"
    )
    if found.ratio_by_torchvision is None:
        return f"{text}."
    return f"{text}, and {found.ratio_by_torchvision.median:.2f} times as long as torchvision's {found.ours.model}."


def _published(found: Beside) -> list[str]:
    row = found.published
    if row is None:
        return [f"The paper has no latency of {found.ours.model} beside {found.other.model}."]
    lines = [
        f"Published ({_PAPER}): {row.other} {row.other_seconds:.3f} s, {row.model} {row.seconds:.3f} s: {row.ratio} "
        f"times. Published accuracies: {row.other_top1} % and {row.top1} %."
    ]
    lines += [
        f"{other.other} ({other.other_seconds:.1f} s beside {other.model}'s {other.seconds:.1f} s, "
        f"{other.ratio} times) cannot be measured: torchvision has no such network."
        for other in TABLE_4
        if other.torchvision is None
    ]
    return lines


def _cells(row: Timed) -> list[str]:
    latency = row.latency
    return [
        row.model,
        row.by,
        row.execution,
        str(row.resolution),
        millions(row.parameters),
        f"{1e3 * latency.median:.2f}",
        f"{1e3 * latency.low:.2f}-{1e3 * latency.high:.2f}",
    ]
