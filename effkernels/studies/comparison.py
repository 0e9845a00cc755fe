"""Scaling one dimension against scaling all three, at the same MACs.

Source: Tan and Le 2019 (arXiv 1905.11946), Figures 3 and 8, and Table 7.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effkernels.analysis.scaled_baselines import TABLE_3, TABLE_7
from effkernels.studies.architecture import Architecture
from effkernels.studies.base import SMALL, Base
from effkernels.studies.grids import PAPER, Triple
from effkernels.studies.report import (
    Document,
    about_trainings,
    base_title,
    data_title,
    table,
    with_error,
)
from effkernels.studies.setting import Setting
from effkernels.studies.statistics import PowerLaw, fit_power_law, mean_and_error
from effkernels.studies.store import Trainer
from effkernels.studies.training import Training

WAYS = ("depth", "width", "resolution", "compound")
TARGETS = (1.5, 2.0, 3.0, 4.0)
"""MACs over the base's."""
LARGEST_MULTIPLIER, STEPS = 6.0, 200
SIZE = (13.0, 5.5)
"""Of the picture, in inches."""
_PUBLISHED_TICKS = (0.3, 0.5, 1, 2, 4, 8, 16)
_LARGEST_PHI = 4.0


@dataclass(frozen=True)
class Point:
    """One network of a way to scale, the nearest to a target in MACs."""

    way: str
    target: float
    multipliers: Triple
    architecture: Architecture
    macs: int


def points(
    triple: Triple = PAPER,
    targets: Sequence[float] = TARGETS,
    base: Base = SMALL,
) -> list[Point]:
    """The networks to compare: depth, width, resolution, compound by ``triple``, at each target.

    Raises:
        ValueError: no targets, or one that is not above 1; or a dimension of the base cannot be scaled at all.
    """
    check_targets(targets)
    base_macs = base.cost(base.network).macs
    made = [
        Point(way, float(target), one, architecture, macs)
        for way, multipliers in _ways(triple, base).items()
        for target, (macs, one, architecture) in zip(
            targets,
            nearest(multipliers, [target * base_macs for target in targets], base),
            strict=True,
        )
    ]
    for way in WAYS:
        if all(point.macs == base_macs for point in made if point.way == way):
            raise ValueError(
                f"targets {', '.join(f'{t:g}' for t in targets)} leave {way} alone at the base, which has "
                f"{base.config.resolution} pixels of the pictures' {base.largest}: pass larger targets, or begin with "
                "fewer pixels (--resolution)"
            )
    return made


def nearest(
    multipliers: Iterable[Triple], wanted: Sequence[float], base: Base = SMALL
) -> list[tuple[int, Triple, Architecture]]:
    """Of the networks of ``multipliers`` the nearest to each number of MACs, as MACs, multipliers and network."""
    known: dict[str, tuple[int, Triple, Architecture]] = {}
    for one in multipliers:
        architecture = one.apply(base)
        name = json.dumps(architecture.to_json())
        if name not in known:
            known[name] = base.cost(architecture).macs, one, architecture
    return [min(known.values(), key=lambda row: abs(math.log(row[0] / macs))) for macs in wanted]


def check_targets(targets: Sequence[float]) -> None:
    """Raises ValueError if there are no targets, or one that is not above 1."""
    if not targets or any(not target > 1 for target in targets):
        raise ValueError(f"targets must be ratios above 1, got {list(targets)}")


def _ways(triple: Triple, base: Base) -> dict[str, Iterator[Triple]]:
    multipliers = [float(m) for m in np.linspace(1, LARGEST_MULTIPLIER, STEPS)]
    phis = [float(phi) for phi in np.linspace(0, _LARGEST_PHI, STEPS)]
    compound = (Triple(triple.alpha**p, triple.beta**p, triple.gamma**p) for p in phis)
    return {
        "depth": (Triple(m, 1.0, 1.0) for m in multipliers),
        "width": (Triple(1.0, m, 1.0) for m in multipliers),
        "resolution": (Triple(1.0, 1.0, m) for m in multipliers if m <= base.largest_factor),
        "compound": (t for t in compound if base.side(t.gamma) <= base.largest),
    }


def compare(
    setting: Setting,
    trainer: Trainer,
    *,
    triple: Triple = PAPER,
    targets: Sequence[float] = TARGETS,
    seeds: int = 3,
) -> Document:
    """Train every point with all seeds, and fit a power law of error against MACs to each way of scaling.

    Args:
        setting, trainer: of the trainings.
        triple: of compound scaling.
        targets: MACs over the base's.
        seeds: at least 2.

    Raises:
        ValueError: an argument out of range.
        OutOfTime: the trainer's time is over; the same call goes on.
    """
    if seeds < 2:
        raise ValueError(f"seeds must be at least 2, for error bars; got {seeds}")
    base = setting.base.network
    chosen = points(triple, targets, setting.base)
    networks = [base, *(point.architecture for point in chosen)]
    trainings = [Training(a, setting, seed) for seed in range(seeds) for a in networks]
    trainer.expect(trainings)
    results = trainer.results(trainings)
    by_network = [
        [results[seed * len(networks) + i] for seed in range(seeds)] for i in range(len(networks))
    ]
    base_row = row_of("base", 1.0, Triple(1.0, 1.0, 1.0), base, by_network[0], 1)
    base_macs = base_row["macs"]
    base_row["macs_ratio"] = 1.0
    rows = [
        row_of(p.way, p.target, p.multipliers, p.architecture, own, base_macs)
        for p, own in zip(chosen, by_network[1:], strict=True)
    ]
    laws = {way: _law(base_row, rows, way, setting.held_out) for way in WAYS}
    return {
        "study": "comparison",
        "setting": setting.describe(),
        "seeds": seeds,
        "triple": [triple.alpha, triple.beta, triple.gamma],
        "base": base_row,
        "rows": rows,
        "power_laws": {way: law.to_json() for way, law in laws.items()},
        "published": [
            {
                "network": row.network,
                "way": row.scaling,
                "macs": row.flops,
                "top1": row.top1,
                "table": row.table,
            }
            for row in (*TABLE_7, *TABLE_3)
        ],
    }


def row_of(
    way: str,
    target: float,
    multipliers: Triple,
    architecture: Architecture,
    results: Sequence[dict[str, Any]],
    base_macs: int,
) -> dict[str, Any]:
    """A network with its accuracies of all seeds, as plain JSON types; the MACs of the base are for the ratio."""
    accuracies = [result["accuracy"] for result in results]
    mean, error = mean_and_error(accuracies)
    return {
        "way": way,
        "target": target,
        "multipliers": [round(m, 4) for m in (multipliers.alpha, multipliers.beta)],
        "network": architecture.to_json(),
        "macs": results[0]["macs"],
        "macs_ratio": results[0]["macs"] / base_macs,
        "params": results[0]["params"],
        "accuracies": accuracies,
        "mean": mean,
        "standard_error": error,
    }


def _law(base: dict[str, Any], rows: Sequence[dict[str, Any]], way: str, held_out: int) -> PowerLaw:
    own = [base, *(row for row in rows if row["way"] == way)]
    least = 1 / (2 * held_out)  # half a picture in the place of none, whose logarithm is infinite
    errors = {row["macs"]: [max(1 - a, least) for a in row["accuracies"]] for row in own}
    return fit_power_law(errors)


def page(document: Document) -> str:
    """The document as Markdown."""
    rows = [
        [
            row["way"],
            f"{row['multipliers'][0]:.2f}, {row['multipliers'][1]:.2f}",
            row["network"]["resolution"],
            f"{row['macs_ratio']:.2f}x",
            f"{row['params']:,}",
            with_error(row["mean"], row["standard_error"]),
        ]
        for row in (document["base"], *document["rows"])
    ]
    laws = []
    for way, law in document["power_laws"].items():
        c, e = law["coefficient"], law["exponent"]
        laws.append(
            [
                way,
                f"{e['value']:.3f} ({e['low']:.3f} to {e['high']:.3f})",
                f"{c['value']:.3f} ({c['low']:.3f} to {c['high']:.3f})",
            ]
        )
    published = [
        [
            row["network"],
            row["way"],
            f"{row['macs'] / 1e9:g}B",
            f"{row['top1']:.1f}",
            row["table"],
        ]
        for row in document["published"]
    ]
    return "\n\n".join(
        [
            "# Depth, width, resolution, or all three",
            f"{about_trainings(document['setting'])}, mean and standard error over {document['seeds']} seeds. "
            f"Compound scaling is by alpha, beta, gamma = {', '.join(f'{m:g}' for m in document['triple'])}.",
            table(
                ["way", "depth, width", "pixels", "MACs", "params", "accuracy, %"],
                rows,
            ),
            "Fitted to each way, the base included: error = coefficient * (MACs / 10^6) ^ "
            "-exponent, with intervals of 95 % from resampling the seeds. They say nothing of "
            "other networks on the same line.",
            table(["way", "exponent", "coefficient"], laws),
            "What the paper printed for ImageNet (Tan and Le 2019, Tables 7 and 3; its FLOPs of networks scaled in one "
            "dimension run up to a fifth above exact MACs):",
            table(["network", "scaled in", "FLOPs", "top-1, %", "table"], published),
            f"![accuracy against MACs]({document['study']}.png)",
        ]
    )


def draw(document: Document, figure: Any) -> None:
    """Accuracy against MACs for each way, with error bars and the fitted laws; beside it the published points."""
    figure.set_size_inches(*SIZE)
    axes, beside = figure.subplots(1, 2)
    _draw_published(document, beside)
    base = document["base"]
    for index, (way, law) in enumerate(document["power_laws"].items()):
        own = [base, *(row for row in document["rows"] if row["way"] == way)]
        colour = f"C{index}"
        x = [row["macs"] / 1e6 for row in own]
        axes.errorbar(
            x,
            [100 * row["mean"] for row in own],
            [100 * row["standard_error"] for row in own],
            fmt="o",
            color=colour,
            capsize=3,
        )
        line = np.linspace(min(x), max(x), 50)
        error = law["coefficient"]["value"] * line ** -law["exponent"]["value"]
        exponent = law["exponent"]["value"]
        axes.plot(
            line, 100 * (1 - error), color=colour, label=f"{way}: error ~ MACs^{-exponent:.2f}"
        )
    axes.set_xscale("log")
    ticks = [base["macs"] / 1e6 * ratio for ratio in (1, 2, 4)]
    axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("million MACs")
    axes.set_ylabel("accuracy on pictures held out, %")
    axes.grid(alpha=0.3)
    axes.legend()
    size = base_title(document["setting"]) or "small networks"
    axes.set_title(f"trained here: {size}, {data_title(document['setting'])}", fontsize=10)


def _draw_published(document: Document, axes: Any) -> None:
    """Each published network that was scaled, joined to its unscaled form."""
    colours = {way: f"C{index}" for index, way in enumerate(document["power_laws"])}
    rows = document["published"]
    for way, colour in colours.items():
        axes.plot([], [], "o-", color=colour, label=way)
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        x, top1 = own[0]["macs"] / 1e9, own[0]["top1"]
        axes.plot([x], [top1], "s", color="0.3", zorder=3)
        place = {"textcoords": "offset points", "fontsize": 8}
        axes.annotate(network, (x, top1), (0, -14), ha="center", **place)
        for row in own[1:]:
            ends = [x, row["macs"] / 1e9], [top1, row["top1"]]
            axes.plot(*ends, "o-", color=colours[row["way"]], markevery=[1], linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(_PUBLISHED_TICKS, [f"{tick:g}" for tick in _PUBLISHED_TICKS])
    axes.minorticks_off()
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel("billion FLOPs (multiply-accumulates) as published")
    axes.set_ylabel("top-1 accuracy on ImageNet as published, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    axes.set_title("published: Tan and Le 2019, Tables 3 and 7", fontsize=10)
