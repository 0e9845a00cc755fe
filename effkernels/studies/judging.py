"""The one look at the test pictures: what the studies selected, beside the base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effkernels.studies.architecture import Architecture
from effkernels.studies.report import Document, data_title, rounded, table, with_error
from effkernels.studies.setting import Setting
from effkernels.studies.statistics import mean_and_error
from effkernels.studies.store import Trainer
from effkernels.studies.training import Training

FIRST_SEED = 100
"""Of seeds that selected nothing."""
_AT = 2.0


def selected(folder: Path, setting: Setting) -> dict[str, Architecture]:
    """The base, and what ``grid.json`` and ``comparison.json`` name at about twice its MACs.

    Raises:
        ValueError: one of them is missing or damaged, or of other pictures or another base.
    """
    grid, comparison = (read(folder / f"{name}.json") for name in ("grid", "comparison"))
    base = setting.base.network
    try:
        for document in (grid, comparison):
            _check_same(document, setting, rounded(base.to_json()), folder)
        found = {
            "base": base,
            f"grid search: {grid['rows'][0]['name']}": _network(grid["rows"][0]),
            f"the paper's: {grid['paper']['name']}": _network(grid["paper"]),
        }
        for row in comparison["rows"]:
            if row["way"] != "compound" and row["target"] == _AT:
                found[f"{row['way']} alone"] = _network(row)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{folder}: a study's JSON lacks {error}") from None
    return found


def _check_same(document: Document, setting: Setting, base: dict[str, Any], folder: Path) -> None:
    data = setting.to_json()["data"]
    if (document["setting"]["data"], document["base"]["network"]) != (data, base):
        raise ValueError(
            f"{folder}: {document['study']}.json is of other pictures or another base: pass the --data, --base and "
            "--resolution of then"
        )


def _network(row: Mapping[str, Any]) -> Architecture:
    return Architecture.from_json(row["network"])


def read(path: Path) -> Document:
    """A study's JSON document.

    Raises:
        ValueError: it is missing or damaged.
    """
    try:
        document: Document = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(
            f"{path} is needed first: {error.strerror or error}; 'effkernels study {path.stem}' writes it"
        ) from None
    except ValueError:
        raise ValueError(f"{path} is damaged: no JSON") from None
    return document


def judge(folder: Path, setting: Setting, trainer: Trainer, *, seeds: int = 3) -> Document:
    """Train what was selected anew, with seeds that selected nothing, and test it.

    Args:
        folder: with the documents of the other studies.
        setting, trainer: of the trainings.
        seeds: at least 2.

    Raises:
        ValueError: a study is missing, or ``final.json`` in the folder is of other networks, seeds or trainings:
            the test pictures would be looked at twice.
        OutOfTime: the trainer's time is over; the same call goes on.
    """
    if seeds < 2:
        raise ValueError(f"seeds must be at least 2, for error bars; got {seeds}")
    networks = selected(folder, setting)
    asked = {
        "setting": setting.describe(),
        "seeds": seeds,
        "networks": {name: network.to_json() for name, network in networks.items()},
    }
    path = folder / "final.json"
    if path.exists() and read(path).get("asked") != asked:
        raise ValueError(
            f"{path}: the test pictures have judged other networks already, and are to be looked "
            "at once; move the file away to look again"
        )
    trainings = [
        Training(network, setting, FIRST_SEED + seed, test=True)
        for seed in range(seeds)
        for network in networks.values()
    ]
    trainer.expect(trainings)
    results = trainer.results(trainings)
    rows = []
    for index, name in enumerate(networks):
        own = [results[seed * len(networks) + index] for seed in range(seeds)]
        accuracies = [result["test_accuracy"] for result in own]
        mean, error = mean_and_error(accuracies)
        rows.append(
            {
                "name": name,
                "macs": own[0]["macs"],
                "macs_ratio": own[0]["macs"] / results[0]["macs"],
                "params": own[0]["params"],
                "test_accuracies": accuracies,
                "mean": mean,
                "standard_error": error,
            }
        )
    return {"study": "final", "asked": asked, "rows": rows}


def page(document: Document) -> str:
    """The document as Markdown."""
    size = document["asked"]["setting"]
    rows = [
        [
            row["name"],
            f"{row['macs_ratio']:.2f}x",
            f"{row['params']:,}",
            with_error(row["mean"], row["standard_error"]),
        ]
        for row in document["rows"]
    ]
    return "\n\n".join(
        [
            "# What was selected, on the test pictures",
            f"Trained anew on {size['pictures']} pictures of {data_title(size)} with "
            f"{document['asked']['seeds']} seeds that had selected nothing; accuracy on the "
            "test pictures, which nothing else has used.",
            table(["network", "MACs", "params", "test accuracy, %"], rows),
            f"![test accuracy]({document['study']}.png)",
        ]
    )


def draw(document: Document, figure: Any) -> None:
    """Test accuracy of each network against its MACs."""
    axes = figure.subplots()
    for row in document["rows"]:
        axes.errorbar(
            row["macs_ratio"],
            100 * row["mean"],
            100 * row["standard_error"],
            fmt="o",
            capsize=3,
            label=row["name"],
        )
    axes.set_xlabel("MACs over the base's")
    axes.set_ylabel("accuracy on test pictures, %")
    axes.grid(alpha=0.3)
    axes.legend()
