"""Networks scaled in width from four pairs of depth and resolution: does width gain more where the others are larger?

Source: Tan and Le 2019 (arXiv 1905.11946), Figure 4, whose points are not printed as numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from effkernels.studies.architecture import Architecture
from effkernels.studies.base import SMALL, Base
from effkernels.studies.comparison import (
    LARGEST_MULTIPLIER,
    STEPS,
    check_targets,
    nearest,
    row_of,
)
from effkernels.studies.grids import Triple
from effkernels.studies.report import Document, about_trainings, table, with_error
from effkernels.studies.setting import Setting
from effkernels.studies.store import Trainer
from effkernels.studies.training import Training

PAIRS = ((1.0, 1.0), (1.0, 1.3), (2.0, 1.0), (2.0, 1.3))
"""Multipliers of depth and resolution, as in the figure."""
TARGETS = (5.0, 8.0)
"""MACs over the base's to which each pair is widened."""


def networks(
    targets: Sequence[float] = TARGETS,
    pairs: Sequence[tuple[float, float]] = PAIRS,
    base: Base = SMALL,
) -> list[list[tuple[float, Triple, Architecture]]]:
    """For each pair the network of width 1, and those nearest to the targets in MACs.

    Returns:
        For each of them the target (the realised ratio of MACs for width 1), the multipliers, and the network.

    Raises:
        ValueError: no targets or pairs, or one below what width 1 needs at one of the pairs; a resolution above the
            pictures' own.
    """
    check_targets(targets)
    if not pairs:
        raise ValueError("pairs must hold at least one pair of depth and resolution")
    base_macs = base.cost(base.network).macs
    first: dict[tuple[float, float], tuple[float, Triple, Architecture]] = {}
    for depth, resolution in pairs:
        if base.side(resolution) > base.largest:
            raise ValueError(
                f"resolution {resolution:g} of a pair makes pictures larger than their own {base.largest} pixels: "
                f"begin below the {base.config.resolution} pixels of {base.config.name}"
            )
        multipliers = Triple(depth, 1.0, resolution)
        own = multipliers.apply(base)
        first[depth, resolution] = base.cost(own).macs / base_macs, multipliers, own
    (depth, resolution), (most, *_) = max(first.items(), key=lambda row: row[1][0])
    if most >= min(targets):
        raise ValueError(
            f"targets must be above {most:.2f}, the MACs of depth {depth:g} and resolution {resolution:g} at "
            f"width 1 over the base's; got {min(targets):g}"
        )
    lines = []
    for depth, resolution in pairs:
        widths = (
            Triple(depth, float(w), resolution) for w in np.linspace(1, LARGEST_MULTIPLIER, STEPS)
        )
        wanted = [target * base_macs for target in targets]
        lines.append(
            [
                first[depth, resolution],
                *(
                    (float(target), triple, architecture)
                    for target, (_, triple, architecture) in zip(
                        targets, nearest(widths, wanted, base), strict=True
                    )
                ),
            ]
        )
    return lines


def width_sweep(
    setting: Setting,
    trainer: Trainer,
    *,
    targets: Sequence[float] = TARGETS,
    pairs: Sequence[tuple[float, float]] = PAIRS,
    seeds: int = 2,
) -> Document:
    """Train every network with all seeds, and compare the pairs at each target.

    Args:
        setting, trainer: of the trainings.
        targets: MACs over the base's.
        pairs: of depth and resolution; differences are to the first one.
        seeds: at least 2.

    Raises:
        ValueError: an argument out of range.
        OutOfTime: the trainer's time is over; the same call goes on.
    """
    if seeds < 2:
        raise ValueError(f"seeds must be at least 2, for error bars; got {seeds}")
    lines = networks(targets, pairs, setting.base)
    every = [network for line in lines for *_, network in line]
    trainings = [Training(a, setting, seed) for seed in range(seeds) for a in every]
    trainer.expect(trainings)
    results = trainer.results(trainings)
    base_macs = setting.base.cost(setting.base.network).macs
    made, place = [], 0
    for (depth, resolution), line in zip(pairs, lines, strict=True):
        rows = []
        for target, multipliers, network in line:
            own = [results[seed * len(every) + place] for seed in range(seeds)]
            rows.append(row_of("width", target, multipliers, network, own, base_macs))
            place += 1
        made.append({"depth": depth, "resolution": resolution, "rows": rows})
    return {
        "study": "widths",
        "setting": setting.describe(),
        "seeds": seeds,
        "targets": list(targets),
        "lines": made,
        "at_equal_macs": _differences(made, targets),
    }


def _differences(lines: Sequence[dict[str, Any]], targets: Sequence[float]) -> list[dict[str, Any]]:
    """At each target the accuracy of each pair less that of the first one, with the standard error of this.

    The scatter of a training is pooled over all networks: that of two or three seeds alone says little.
    """
    every = [row["accuracies"] for line in lines for row in line["rows"]]
    variance = float(np.mean([np.var(accuracies, ddof=1) for accuracies in every]))
    error = math.sqrt(2 * variance / len(every[0]))
    found = []
    for place, target in enumerate(targets, start=1):
        first = lines[0]["rows"][place]["mean"]
        found += [
            {
                "target": target,
                "depth": line["depth"],
                "resolution": line["resolution"],
                "difference": line["rows"][place]["mean"] - first,
                "standard_error": error,
            }
            for line in lines[1:]
        ]
    return found


def _title(line: dict[str, Any]) -> str:
    return f"depth {line['depth']:g}, resolution {line['resolution']:g}"


def verdict(document: Document) -> str:
    """Whether depth and resolution pay at the largest target, in words: only beyond two standard errors."""
    last = [d for d in document["at_equal_macs"] if d["target"] == max(document["targets"])]
    better = [_title(d) for d in last if d["difference"] > 2 * d["standard_error"]]
    worse = [_title(d) for d in last if d["difference"] < -2 * d["standard_error"]]
    said = [
        f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} {how} than {_title(document['lines'][0])}"
        for names, how in ((better, "better"), (worse, "worse"))
        if names
    ]
    if not said:
        return "no pair differs from the first one by more than two standard errors"
    return "; ".join(said)


def page(document: Document) -> str:
    """The document as Markdown."""
    rows = [
        [
            _title(line),
            f"{row['multipliers'][1]:.2f}",
            row["network"]["resolution"],
            f"{row['macs_ratio']:.2f}x",
            f"{row['params']:,}",
            with_error(row["mean"], row["standard_error"]),
        ]
        for line in document["lines"]
        for row in line["rows"]
    ]
    differences = [
        [
            _title(row),
            f"{row['target']:g}x",
            f"{100 * row['difference']:+.1f} ± {100 * row['standard_error']:.1f}",
        ]
        for row in document["at_equal_macs"]
    ]
    return "\n\n".join(
        [
            "# Width at four depths and resolutions",
            f"{about_trainings(document['setting'])}, mean and standard error over {document['seeds']} seeds. "
            "Each line begins at width 1 and is widened to the same MACs over the base's. The paper's Figure 4 has "
            "width gaining more where depth and resolution are larger; it prints no numbers.",
            table(["line", "width", "pixels", "MACs", "params", "accuracy, %"], rows),
            f"At {max(document['targets']):g} times the base's MACs {verdict(document)}. Differences in accuracy to "
            f"{_title(document['lines'][0])}, in points, at equal MACs; the standard error is from the scatter of "
            "seeds, pooled over all networks:",
            table(["line", "MACs", "difference"], differences),
            f"![accuracy against MACs]({document['study']}.png)",
        ]
    )


def draw(document: Document, figure: Any) -> None:
    """Accuracy against MACs, a line for each pair; each point has its width."""
    axes = figure.subplots()
    for index, line in enumerate(document["lines"]):
        x = [row["macs"] / 1e6 for row in line["rows"]]
        y = [100 * row["mean"] for row in line["rows"]]
        errors = [100 * row["standard_error"] for row in line["rows"]]
        axes.errorbar(x, y, errors, fmt="o-", capsize=3, color=f"C{index}", label=_title(line))
        for row, left, height in zip(line["rows"], x, y, strict=True):
            axes.annotate(
                f"{row['multipliers'][1]:.3g}",
                (left, height),
                (5, 5 if index % 2 else -11),
                textcoords="offset points",
                fontsize=8,
                color=f"C{index}",
            )
    axes.margins(x=0.08)
    axes.set_xlabel("million MACs (numbers at the points: multiplier of width)")
    axes.set_ylabel("accuracy on pictures held out, %")
    axes.grid(alpha=0.3)
    axes.legend()
