"""``effkernels choose``: the most accurate model within limits, measured here."""

from __future__ import annotations

from pathlib import Path

import torch

import effkernels
from effkernels.analysis.choice import B_AND_LITE, Candidate
from effkernels.choosing import Choice
from effkernels.choosing import choose as find
from effkernels.choosing.drawing import draw
from effkernels.cli.beside import beside as measure_beside
from effkernels.cli.options import check_at_least_1, choose_device, torch_dtype
from effkernels.cli.output import (
    billions,
    check_output,
    console,
    megabytes,
    millions,
    number_table,
    print_json,
    print_wide,
    printable,
)
from effkernels.cli.progress import progress_bar

PICTURES = (".png", ".svg", ".pdf")
_NOT_RUN = "not run"
_LIMITS = "--latency, --memory, --macs or --parameters"


def choose(
    *,
    beside: str | None,
    latency: float | None,
    memory: float | None,
    macs: float | None,
    parameters: float | None,
    model: list[str] | None,
    every_source: bool,
    batch_size: int,
    dtype: str,
    device: str | None,
    threads: int | None,
    seconds: float,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Print the candidates and the choice; see ``effkernels choose --help``."""
    no_limit = latency is memory is macs is parameters is None
    if beside is not None and not (no_limit and not every_source):
        raise ValueError(
            f"--beside measures two networks: it takes no {_LIMITS}, and no --every-source"
        )
    if beside is None and no_limit:
        raise ValueError(f"no limit given: pass {_LIMITS}")
    check_at_least_1("--batch-size", batch_size)
    if not 0.0 <= seconds < float("inf"):
        raise ValueError(f"--seconds must be finite and at least 0, got {seconds:g}")
    if output is not None:
        check_output(output, PICTURES, force=force)
    where, why = choose_device(device)
    if threads is not None:
        check_at_least_1("--threads", threads)
        if where.type != "cpu":
            raise ValueError(f"--threads is for the CPU, and --device is {where}")
    before = torch.get_num_threads()
    if beside is not None and threads is None and where.type == "cpu":
        threads = 1  # as the paper measured
    try:
        torch.set_num_threads(before if threads is None else threads)
        if beside is not None:
            measure_beside(
                beside,
                model=model,
                batch_size=batch_size,
                dtype=torch_dtype(dtype),
                device=where,
                why=why,
                seconds=seconds,
                output=output,
                as_json=as_json,
            )
            return
        with progress_bar() as bar:
            task = bar.add_task("measuring", total=None)
            found = find(
                latency=latency,
                memory=memory,
                macs=macs,
                parameters=parameters,
                device=where,
                batch_size=batch_size,
                dtype=torch_dtype(dtype),
                models=model or B_AND_LITE,
                every_source=every_source,
                seconds=seconds,
                watch=lambda name: bar.update(task, description=name),
            )
    finally:
        torch.set_num_threads(before)
    if output is not None:
        draw(found, output)
    if as_json:
        versions = {"effkernels": effkernels.__version__, "torch": torch.__version__}
        print_json({"versions": versions, "device_reason": why, **found.as_dict()})
        return
    _print(found, why, output)


def _print(found: Choice, why: str, output: Path | None) -> None:
    grid = number_table(
        ["", "model"], ["pixels", "top-1", "MACs", "params", "memory", "ms", "quartiles"]
    )
    grid.add_column("")
    best = found.best
    for row in found.rows:
        mark = ">" if row == best else "*" if row.on_front else ""
        grid.add_row(mark, *_cells(row), _short(row), style="" if row.fits else "dim")
    print_wide(grid)
    out = console()
    images = "1 image" if found.batch_size == 1 else f"{found.batch_size} images"
    threads = f"{_threads(found.threads)}, " if found.device.type == "cpu" else ""
    notes = [
        f"* on the Pareto front of accuracy against {found.limits.axis}. top-1: published for these pixels. "
        f"ms: median of {found.rounds} rounds on {found.device} ({threads}{why}), {images}.",
        *dict.fromkeys(row.excluded for row in found.rows if _short(row) == _NOT_RUN),
    ]
    out.print()
    for note in notes:
        out.print(printable(note))
    if best is None or best.accuracy is None:
        out.print("no candidate within the limits has a published accuracy")
    else:
        of = (
            f"{best.accuracy.top1:.1f} % with {best.accuracy.source} ({best.accuracy.published_by})"
        )
        out.print(printable(f"> {best.name}: {of}{_doubt(best, found)}"))
    if output is not None:
        out.print(printable(f"written to {output}"), soft_wrap=True)


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def _short(row: Candidate) -> str:
    """Why a candidate is out of the question, in few words."""
    if row.excluded.startswith(_NOT_RUN):
        return _NOT_RUN
    return row.excluded.replace("above the limit of", "over")


def _doubt(best: Candidate, found: Choice) -> str:
    """What to add where the quartiles lie on both sides of the limit."""
    limit = found.limits.latency
    if limit is None or best.latency is None or best.latency.high <= limit:
        return ""
    return f"; not surely within the limit: a quarter of the turns took over {1e3 * best.latency.high:.3g} ms"


def _cells(row: Candidate) -> list[str]:
    latency = row.latency
    return [
        row.model.removeprefix("efficientnet_"),
        str(row.resolution),
        "" if row.accuracy is None else f"{row.accuracy.top1:.1f}",
        billions(row.macs),
        millions(row.parameters),
        megabytes(row.memory),
        "" if latency is None else f"{1e3 * latency.median:.2f}",
        "" if latency is None else f"{1e3 * latency.low:.2f}-{1e3 * latency.high:.2f}",
    ]
