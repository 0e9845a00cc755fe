"""``effkernels predict``: classify pictures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console

from effkernels.cli.classify import check_topk, load_named, logits_of, rank
from effkernels.cli.options import (
    check_at_least_1,
    choose_device,
    torch_dtype,
)
from effkernels.cli.output import console, print_json, printable, ranking
from effkernels.cli.pictures import collect, prepare
from effkernels.cli.progress import progress_bar
from effkernels.data.pictures import Skipped
from effkernels_cli.errors import in_options, one_line

_MANY = 8  # number of pictures from which a progress bar is shown


def predict(
    *,
    images: Sequence[str],
    model: str,
    weights: str,
    source: str | None,
    use_ema: bool | None,
    topk: int,
    batch_size: int,
    device: str | None,
    dtype: str,
    as_json: bool,
) -> None:
    """Print the ranking of each picture; see ``effkernels predict --help``."""
    check_at_least_1("--topk", topk)
    check_at_least_1("--batch-size", batch_size)
    paths, skipped = collect(images)
    if not paths:
        raise ValueError("; ".join(nothing.problem for nothing in skipped))
    where, _ = choose_device(device)
    network, names = load_named(model, weights, source, where, torch_dtype(dtype), use_ema=use_ema)
    check_topk(topk, network.num_classes)

    pictures: list[dict[str, Any]] = []
    with progress_bar(disable=len(paths) < _MANY) as progress:
        # While a bar is shown, only its own console can print above it; otherwise results go to
        # stdout.
        live = not progress.disable and sys.stdout.isatty()
        out = progress.console if live else console()
        task = progress.add_task("pictures", total=len(paths))
        _report(skipped, progress.console)
        for batch in prepare(paths, batch_size, network.preprocessing):
            ranked = rank(logits_of(network, batch.tensors), topk, names) if batch.tensors else []
            for path, top in zip(batch.paths, ranked, strict=True):
                pictures.append({"path": str(path), "top": [entry.to_json() for entry in top]})
                if not as_json:
                    out.print(printable(path, "bold"), soft_wrap=True)
                    out.print(ranking(top, out))
            _report(batch.skipped, progress.console)
            skipped += batch.skipped
            progress.advance(task, len(batch.paths) + len(batch.skipped))

    if as_json:
        print_json(
            {
                "model": model,
                "weights": weights,
                "num_classes": network.num_classes,
                "device": str(where),
                "dtype": dtype,
                "pictures": pictures,
                "skipped": [nothing.to_json() for nothing in skipped],
            }
        )
    if not pictures:
        raise ValueError(f"none of {len(paths)} pictures could be read")
    if skipped:
        raise typer.Exit(1)


def _report(skipped: Sequence[Skipped], errors: Console) -> None:
    for nothing in skipped:
        line = f"effkernels: skipped: {one_line(in_options(nothing.problem))}"
        errors.print(printable(line, "yellow"), soft_wrap=True)
