"""``effkernels evaluate``: accuracy of weights on labelled pictures."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from effkernels.cli.options import check_at_least_1, choose_device, torch_dtype
from effkernels.cli.output import console, facts, print_json, printable
from effkernels.cli.progress import progress_bar
from effkernels.cli.train import default_workers
from effkernels.train import Evaluation
from effkernels.train.building import class_names, load_trained, model_of
from effkernels.train.evaluation import (
    CALIBRATION,
    CONFUSION,
    draw_calibration,
    draw_confusion,
    match_classes,
)
from effkernels.train.evaluation import evaluate as evaluate_model
from effkernels.train.splits import open_validation
from effkernels.train.state import check_folder
from effkernels_cli.options import DEFAULT_MODEL

_MOST_NAMED = 5  # pairs of classes


def evaluate(
    *,
    data: str,
    weights: str,
    model: str | None,
    source: str | None,
    use_ema: bool | None,
    output: Path | None,
    resolution: int | None,
    batch_size: int,
    workers: int | None,
    device: str | None,
    dtype: str,
    as_json: bool,
) -> None:
    """Print accuracies, and draw pictures where requested; see ``effkernels evaluate --help``."""
    check_at_least_1("--batch-size", batch_size)
    if resolution is not None:
        check_at_least_1("--resolution", resolution)
    if output is not None:
        check_folder(output)
    pictures = open_validation(data)
    name = model or (model_of(weights) if Path(weights).is_file() else DEFAULT_MODEL)
    where, _ = choose_device(device)
    built = load_trained(name, weights, source, where, torch_dtype(dtype), use_ema=use_ema)
    network = built.model
    if resolution is not None:
        network.preprocessing = replace(network.preprocessing, size=resolution)
    names = class_names(network.num_classes, built.classes)
    classes = match_classes(pictures.classes, names, stated=built.classes is not None)
    with progress_bar() as bar:
        task = bar.add_task("pictures", total=len(pictures))
        found = evaluate_model(
            network,
            pictures,
            classes,
            names,
            batch_size=batch_size,
            workers=default_workers() if workers is None else workers,
            watch=lambda done: bar.advance(task, done),
        )
        for problem in found.problems:
            line = printable(f"effkernels: skipped: {problem}", "yellow")
            bar.console.print(line, soft_wrap=True)
    if output is not None:
        draw_confusion(found, output / CONFUSION)
        draw_calibration(found, output / CALIBRATION)
    document = _document(found, name, weights, network.preprocessing.size)
    if as_json:
        print_json(document)
    else:
        _print(found, document, output)


def _document(found: Evaluation, model: str, weights: str, resolution: int) -> dict[str, Any]:
    return {
        "model": model,
        "weights": weights,
        "resolution": resolution,
        **asdict(found.scores),
        "calibration_error": found.calibration.error,
        "classes": found.classes,
        "confusion": found.confusion.tolist(),
        "unreadable": found.problems,
    }


def _print(found: Evaluation, document: dict[str, Any], output: Path | None) -> None:
    scores = found.scores
    rows: dict[str, object] = {
        "model": f"{document['model']}, {document['weights']}, {document['resolution']} pixels",
        "pictures": scores.pictures,
        "top-1": f"{100 * scores.top1:.2f} %",
        "top-5": f"{100 * scores.top5:.2f} %",
        "loss": f"{scores.loss:.4f}",
        "calibration": f"{100 * found.calibration.error:.2f} % expected error",
    }
    if mistakes := _mistakes(found):
        rows["mistakes"] = mistakes
    if output is not None:
        rows["drawn"] = f"{output / CONFUSION}, {output / CALIBRATION}"
    console().print(facts(rows))


def _mistakes(found: Evaluation) -> str:
    """The pairs of classes that are most often taken for each other."""
    wrong = found.confusion.clone().fill_diagonal_(0).flatten()
    counts, places = wrong.topk(min(_MOST_NAMED, len(wrong)))
    classes = found.classes
    return "; ".join(
        f"{classes[place // len(classes)]} as {classes[place % len(classes)]} ({count})"
        for count, place in zip(counts.tolist(), places.tolist(), strict=True)
        if count
    )
