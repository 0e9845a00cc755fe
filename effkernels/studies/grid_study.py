"""Step 1 of compound scaling as a study: which triple is best at twice the cost.

Source: Tan and Le 2019 (arXiv 1905.11946), section 3.3, step 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effkernels.studies.grids import PAPER, Candidate, Triple, reference
from effkernels.studies.halving import Trained, search
from effkernels.studies.report import Document, about_trainings, percent, table, with_error
from effkernels.studies.setting import Setting
from effkernels.studies.statistics import at_equal_macs, mean_and_error, shares_of_wins
from effkernels.studies.store import Trainer
from effkernels.studies.training import Training

BASE = Triple(1.0, 1.0, 1.0)


def grid_search(
    candidates: Sequence[Candidate],
    setting: Setting,
    trainer: Trainer,
    study: Path,
    *,
    constraint: str,
    target: float,
    tolerance: float,
    seeds: int = 5,
    pruner: str = "halving",
) -> Document:
    """Search, then compare what is left, the base and the paper's triple over all seeds.

    Args:
        candidates, setting, trainer, seeds, pruner: as in :func:`effkernels.studies.halving.search`.
        study: Optuna's file.
        constraint, target, tolerance: by which the candidates were chosen; for the record.

    Returns:
        ``rows`` of all candidates, the best first; ``best``, the triple of the highest mean at equal MACs among those
        with all seeds, with the share of resamples of the seeds in which each of these is the best; ``base`` and
        ``paper`` as rows.
    """
    references = [reference(triple, setting.base) for triple in (BASE, PAPER)]
    also = [Training(c.architecture, setting, seed) for c in references for seed in range(seeds)]
    trained = search(candidates, setting, trainer, study, seeds=seeds, pruner=pruner, also=also)
    beside = [_row(candidate, setting, trainer, seeds) for candidate in references]
    base_macs = beside[0]["macs"]
    rows = [_as_row(one, base_macs) for one in trained]
    moved = [row["mean"] for row in rows]
    if constraint != "macs":  # else they are equal already: a line through 1.9 to 2.1 would be luck
        moved = at_equal_macs(moved, [row["macs_ratio"] for row in rows], target)
    for row, mean in zip(rows, moved, strict=True):
        row["mean_at_equal_macs"] = mean
    whole = [row for row in rows if len(row["accuracies"]) == seeds]
    wins = shares_of_wins(
        {row["name"]: row["accuracies"] for row in whole},
        {row["name"]: row["mean_at_equal_macs"] - row["mean"] for row in whole},
    )
    for row in whole:
        row["share_of_wins"] = wins[row["name"]]
    rows.sort(key=lambda row: (-len(row["accuracies"]), -row["mean_at_equal_macs"]))
    triples = np.array([row["triple"] for row in whole])
    weights = np.array([row["share_of_wins"] for row in whole])
    mean = weights @ triples
    spread = np.sqrt(weights @ (triples - mean) ** 2)
    return {
        "study": name_of(constraint),
        "constraint": constraint,
        "target": target,
        "tolerance": tolerance,
        "setting": setting.describe(),
        "seeds": seeds,
        "pruner": pruner,
        "best": rows[0]["triple"],
        "triple_over_resamples": {"mean": mean.tolist(), "deviation": spread.tolist()},
        "rows": rows,
        "base": beside[0],
        "paper": beside[1],
    }


def name_of(constraint: str) -> str:
    """Of the study with this constraint, and of its files."""
    return "grid" if constraint == "nominal" else f"grid_{constraint}"


def _row(candidate: Candidate, setting: Setting, trainer: Trainer, seeds: int) -> dict[str, Any]:
    trainings = [Training(candidate.architecture, setting, seed) for seed in range(seeds)]
    results = trainer.results(trainings)
    accuracies = tuple(result["accuracy"] for result in results)
    one = Trained(candidate, accuracies, results[0]["params"], results[0]["macs"])
    return _as_row(one, results[0]["macs"] / candidate.ratios["macs"])


def _as_row(one: Trained, base_macs: float) -> dict[str, Any]:
    mean, error = mean_and_error(one.accuracies)
    return {
        "name": str(one.candidate.triple),
        **one.candidate.to_json(),
        "network": one.candidate.architecture.to_json(),
        "params": one.params,
        "macs": one.macs,
        "macs_ratio": one.macs / base_macs,
        "accuracies": list(one.accuracies),
        "mean": mean,
        "standard_error": error,
    }


def page(document: Document) -> str:
    """The document as Markdown."""
    kinds = [kind for kind in document["rows"][0]["ratios"] if kind != "macs"]
    head = ["alpha, beta, gamma", "nominal", "MACs", *kinds, "params", "seeds", "accuracy, %",
            "at equal MACs, %", "best of resamples, %"]  # fmt: skip
    named = [("base: ", document["base"]), ("the paper's: ", document["paper"])]
    rows = [("", row) for row in document["rows"]] + named
    lines = [
        [
            f"{title}{row['name']}",
            f"{row['nominal']:.2f}",
            f"{row['macs_ratio']:.2f}x",
            *(f"{row['ratios'][kind]:.2f}x" if kind in row["ratios"] else "-" for kind in kinds),
            f"{row['params']:,}",
            len(row["accuracies"]),
            with_error(row["mean"], row["standard_error"]),
            percent(row.get("mean_at_equal_macs")),
            percent(row.get("share_of_wins"), 0),
        ]
        for title, row in rows
    ]
    over = document["triple_over_resamples"]
    spread = ", ".join(
        f"{name} {mean:.2f} ± {deviation:.2f}"
        for name, mean, deviation in zip(
            ("alpha", "beta", "gamma"), over["mean"], over["deviation"], strict=True
        )
    )
    best = document["rows"][0]
    triples = sum(1 + len(row["same_network"]) for row in document["rows"])
    return "\n\n".join(
        [
            f"# Grid search for alpha, beta, gamma: {document['constraint']} ratio "
            f"{document['target']:g} ± {document['tolerance']:g}",
            f"{about_trainings(document['setting'])}, mean and standard error over seeds. "
            f"A candidate that fell behind was stopped after fewer than {document['seeds']} seeds. "
            f"{len(document['rows'])} networks keep the "
            f"constraint; rounding makes them of {triples} triples.",
            f"Best: **{best['name']}**. When the seeds are drawn again, the best triple is {spread}.",
            table(head, lines),
            "Nominal is alpha * beta^2 * gamma^2; MACs and what follows are the realised ratios to "
            "the base. The accuracy at equal MACs is moved to the target along the line of all "
            "candidates' accuracy against the logarithm of MACs; where realised MACs are the "
            "constraint it stays as it is.",
            f"![accuracy against MACs]({document['study']}.png)",
        ]
    )


def draw(document: Document, figure: Any) -> None:
    """Accuracy of the candidates against their realised MACs."""
    axes = figure.subplots()
    for row in document["rows"]:
        whole = len(row["accuracies"]) == document["seeds"]
        axes.errorbar(
            row["macs_ratio"],
            100 * row["mean"],
            None if row["standard_error"] is None else 100 * row["standard_error"],
            fmt="o" if whole else "x",
            color="tab:blue" if whole else "0.6",
            capsize=3,
        )
        if whole:
            axes.annotate(
                row["name"],
                (row["macs_ratio"], 100 * row["mean"]),
                xytext=(5, 5),
                textcoords="offset points",
                fontsize=8,
            )
    for title, row, marker in (("base", document["base"], "s"), ("paper", document["paper"], "D")):
        axes.errorbar(
            row["macs_ratio"],
            100 * row["mean"],
            100 * row["standard_error"],
            fmt=marker,
            color="tab:red",
            capsize=3,
            label=f"{title}: {row['name']}",
        )
    axes.plot([], [], "o", color="tab:blue", label=f"all {document['seeds']} seeds")
    axes.plot([], [], "x", color="0.6", label="stopped early")
    axes.set_xlabel("MACs over the base's, as realised")
    axes.set_ylabel("accuracy on pictures held out, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
