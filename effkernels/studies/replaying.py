"""Does the search beat random search? Replayed many times on a table of networks that were all trained once."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from statistics import median
from typing import Any

import numpy as np
import torch

from effkernels.studies.evolution import EXPONENT, STRATEGIES, best_so_far, network_name, reward
from effkernels.studies.latencies import Latencies
from effkernels.studies.report import Document, data_title, percent, table, with_error
from effkernels.studies.setting import Setting, epochs_of
from effkernels.studies.space import TABLED, Choice, SearchSpace
from effkernels.studies.statistics import RESAMPLES, interval, mean_and_error
from effkernels.studies.store import Trainer
from effkernels.studies.training import Training
from effkernels.timing import device_name
from effkernels.train.randomness import derive

TABLE_SETTING = Setting(pictures=2000, batch=40)
"""Shorter than the other studies' trainings: there are hundreds."""
SEEDS = 2
"""One that a search sees, and one that judges what it chose."""

Rewards = dict[Choice, tuple[float, float]]
"""For each choice its reward with each of the two seeds."""


def trained_table(
    trainer: Trainer, space: SearchSpace = TABLED, setting: Setting = TABLE_SETTING
) -> dict[Choice, list[dict[str, Any]]]:
    """Train every network of a space with both seeds.

    Returns:
        For each choice the results of both; choices of the same network share them.

    Raises:
        ValueError: the space has over 10,000 choices.
        OutOfTime: the trainer's time is over; the same call goes on.
    """
    if space.size > 10_000:
        raise ValueError(f"the space has {space.size:,} choices: too many to train all of them")
    choices = list(space)
    trainings = [
        Training(space.architecture(choice), setting, seed)
        for seed in range(SEEDS)
        for choice in choices
    ]
    trainer.expect(trainings)
    results = trainer.results(trainings)
    return {
        choice: [results[seed * len(choices) + i] for seed in range(SEEDS)]
        for i, choice in enumerate(choices)
    }


def replay(
    space: SearchSpace, rewards: Rewards, *, budget: int, times: int
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """For each strategy (times, budget) rewards of the best so far.

    A search sees the reward with one seed, alternately the first and the second; what counts is the reward of its
    choice with the other seed. With the seen one a search would be praised for finding lucky trainings.
    """
    found = {}
    for number, (name, strategy) in enumerate(STRATEGIES.items()):
        rows = np.empty((times, budget))
        for run in range(times):
            seen, unseen = run % 2, 1 - run % 2
            tried = strategy(
                space,
                lambda choice, seen=seen: rewards[choice][seen],  # type: ignore[misc]
                budget,
                Random(derive(number, run)),
            )
            values = [rewards[choice][unseen] for choice in best_so_far(tried)]
            rows[run] = values + [values[-1]] * (budget - len(values))
        found[name] = rows
    return found


def search_study(
    trainer: Trainer,
    space: SearchSpace = TABLED,
    setting: Setting = TABLE_SETTING,
    *,
    budget: int = 80,
    times: int = 200,
    measured: Latencies | None = None,
) -> Document:
    """Train the table, and replay evolution and random search on it.

    Args:
        trainer, space, setting: as in :func:`trained_table`.
        budget: networks that a search may train; fewer than the space has.
        times: replays of each strategy.
        measured: makes latency on this device the cost in place of MACs, both in the objective and beside them.

    Raises:
        ValueError: an argument out of range.
        OutOfTime: the trainer's time is over; the same call goes on.
    """
    networks = {network_name(space, choice): choice for choice in space}
    if not 2 <= budget < len(networks):
        raise ValueError(
            f"budget must be from 2 to below the {len(networks)} networks of the space, got {budget}"
        )
    if times < 2:
        raise ValueError(f"times must be at least 2, got {times}")
    results = trained_table(trainer, space, setting)
    if measured is not None:
        _add_latencies(space, results, networks, measured)
    cost = "macs" if measured is None else "latency"
    target = median(results[choice][0][cost] for choice in networks.values())
    rewards: Rewards = {}
    for choice, rows in results.items():
        first, second = (reward(row["accuracy"], row[cost], target) for row in rows)
        rewards[choice] = first, second
    runs = replay(space, rewards, budget=budget, times=times)
    names = list(networks.values())
    pairs = np.array([rewards[choice] for choice in names])
    order = sorted(names, key=lambda choice: -sum(rewards[choice]))
    document = {
        "study": "search" if measured is None else "search_latency",
        "setting": setting.to_json(),
        "objective": {"exponent": EXPONENT, f"target_{cost}": target},
        "choices": space.size,
        "networks": len(networks),
        "budget": budget,
        "times": times,
        "correlation_of_seeds": float(np.corrcoef(pairs.T)[0, 1]),
        "correlation_of_accuracies": _correlation(results, names),
        "best_of_table": float(pairs.mean(1).max()),
        "mean_of_table": float(pairs.mean()),
        "best_so_far": {name: _curve(rows) for name, rows in runs.items()},
        "evolution_minus_random": _differences(runs["evolution"], runs["random"]),
        "options": _options(space, results),
        "best_networks": [_described(space, choice, results, rewards) for choice in order[:5]],
    }
    if measured is not None:
        document["costs"] = _costs(results, names)
    return document


def _add_latencies(
    space: SearchSpace,
    results: dict[Choice, list[dict[str, Any]]],
    networks: dict[str, Choice],
    measured: Latencies,
) -> None:
    """Put ``latency`` in seconds into each result; all networks take turns."""
    seconds = measured.of([space.architecture(choice) for choice in networks.values()])
    by_name = dict(zip(networks, seconds, strict=True))
    for choice, rows in results.items():
        took = by_name[network_name(space, choice)]
        results[choice] = [{**row, "latency": took} for row in rows]


def _costs(results: dict[Choice, list[dict[str, Any]]], names: Sequence[Choice]) -> dict[str, Any]:
    """MACs and seconds of each network, on which machine, and how well the one tells the order of the other."""
    macs = [results[choice][0]["macs"] for choice in names]
    seconds = [results[choice][0]["latency"] for choice in names]
    ranks = np.array([_ranks(values) for values in (macs, seconds)])
    return {
        "machine": device_name(torch.device("cpu")),
        "macs": macs,
        "latency": seconds,
        "rank_correlation": float(np.corrcoef(ranks)[0, 1]),
    }


def _ranks(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The place of each value in their order; equal ones share the mean of their places."""
    order = np.sort(values)
    return (np.searchsorted(order, values) + np.searchsorted(order, values, "right") - 1) / 2


def _options(
    space: SearchSpace, results: dict[Choice, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """What each option of each decision is worth: the mean over all networks that have it, with its standard error."""
    rows = []
    for place, decision in enumerate(space.decisions):
        for index, option in enumerate(decision.options):
            having = [two for choice, two in results.items() if choice[place] == index]
            # Choices of the same network count once.
            own = {row["key"]: row["accuracy"] for two in having for row in two}
            mean, error = mean_and_error(list(own.values()))
            rows.append(
                {
                    "field": decision.field,
                    "stages": list(decision.stages),
                    "option": option,
                    "mean": mean,
                    "standard_error": error,
                }
            )
    return rows


def _correlation(results: dict[Choice, list[dict[str, Any]]], names: Sequence[Choice]) -> float:
    accuracies = np.array([[row["accuracy"] for row in results[choice]] for choice in names])
    return float(np.corrcoef(accuracies.T)[0, 1])


def _curve(rows: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, list[float]]:
    low, high = np.quantile(rows, (0.05, 0.95), axis=0)
    return {"mean": rows.mean(0).tolist(), "low": low.tolist(), "high": high.tolist()}


def _differences(
    evolution: np.ndarray[Any, np.dtype[np.float64]], other: np.ndarray[Any, np.dtype[np.float64]]
) -> list[dict[str, Any]]:
    """Of the means, at some budgets, with the interval of 95 % from resampling the replays."""
    budget, times = evolution.shape[1], len(evolution)
    drawn = np.random.default_rng(0).integers(times, size=(RESAMPLES, times))
    rows = []
    for after in sorted({max(1, budget * quarter // 4) for quarter in (1, 2, 3, 4)}):
        ours, theirs = evolution[:, after - 1], other[:, after - 1]
        resampled = ours[drawn].mean(1) - theirs[drawn[::-1]].mean(1)
        estimate = interval(resampled, ours.mean() - theirs.mean())
        rows.append({"networks": after, **estimate.to_json()})
    return rows


def _described(
    space: SearchSpace,
    choice: Choice,
    results: dict[Choice, list[dict[str, Any]]],
    rewards: Rewards,
) -> dict[str, Any]:
    rows = results[choice]
    return {
        "choice": space.describe(choice),
        **{cost: rows[0][cost] for cost in ("macs", "latency") if cost in rows[0]},
        "accuracies": [row["accuracy"] for row in rows],
        "rewards": list(rewards[choice]),
    }


def verdict(document: Document) -> str:
    """Who won after the whole budget, in words."""
    last = document["evolution_minus_random"][-1]
    if last["low"] > 0:
        return "Evolution found better networks than random search"
    if last["high"] < 0:
        return "Evolution lost to random search"
    return "Evolution and random search cannot be told apart"


def page(document: Document) -> str:
    """The document as Markdown."""
    size, by_latency = document["setting"], "costs" in document
    differences = [
        [
            row["networks"],
            *(
                f"{document['best_so_far'][name]['mean'][row['networks'] - 1]:.4f}"
                for name in STRATEGIES
            ),
            f"{row['value']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})",
        ]
        for row in document["evolution_minus_random"]
    ]
    best = [
        [
            ", ".join(f"{name}: {value}" for name, value in row["choice"].items()),
            f"{row['macs'] / 1e6:.3f}M",
            *([f"{1e3 * row['latency']:.2f}"] if by_latency else []),
            ", ".join(percent(a) for a in row["accuracies"]),
            f"{sum(row['rewards']) / 2:.4f}",
        ]
        for row in document["best_networks"]
    ]
    options = [
        [
            row["field"],
            ", ".join(map(str, row["stages"])),
            row["option"],
            with_error(row["mean"], row["standard_error"]),
        ]
        for row in document["options"]
    ]
    objective = document["objective"]
    if by_latency:
        target = f"latency / {1e3 * objective['target_latency']:.3f} ms"
    else:
        target = f"MACs / {objective['target_macs'] / 1e6:.3f}M"
    return "\n\n".join(
        [
            "# The search that made B0, against random search",
            f"All {document['networks']} networks of a part of MNAS's space "
            f"({document['choices']} choices, some of which make the same network) were trained "
            f"once with each of two seeds: {size['pictures']} pictures of {data_title(size)}, "
            f"{epochs_of(size)} epoch. The objective is ACC * "
            f"({target}) ^ {objective['exponent']:g}, with the accuracy on "
            f"{size['held_out']} training pictures held out. Each search was replayed "
            f"{document['times']} times on this table. It sees one seed; what it chose is judged "
            "by the other one.",
            f"**{verdict(document)}** after {document['budget']} networks.",
            table(
                ["networks trained", *STRATEGIES, "difference (95 %)"],
                differences,
            ),
            "The intervals are those of other replays on this table; other trainings of it would differ by more.",
            f"The best network of the table has {document['best_of_table']:.4f}, the mean of "
            "both seeds, which is praised for luck; the mean of all is "
            f"{document['mean_of_table']:.4f}. Between the two seeds rewards correlate with "
            f"{document['correlation_of_seeds']:.2f} and accuracies with "
            f"{document['correlation_of_accuracies']:.2f}: the share of the variance that lies "
            "in the networks; the rest is luck of a training.",
            "The mean accuracy over all networks that have an option:",
            table(["decision", "stages", "option", "accuracy, %"], options),
            *([_about_latency(document)] if by_latency else []),
            table(
                [
                    "best of the table",
                    "MACs",
                    *(["ms"] if by_latency else []),
                    "accuracies, %",
                    "mean reward",
                ],
                best,
            ),
            f"![best so far]({document['study']}.png)",
        ]
    )


def _about_latency(document: Document) -> str:
    costs = document["costs"]
    pairs = [s / m for s, m in zip(costs["latency"], costs["macs"], strict=True)]
    return (
        f"Latency is that of one picture in one thread of {costs['machine']}, fused, the median of turns that all "
        f"networks took. It and MACs order the networks alike with a rank correlation of "
        f"{costs['rank_correlation']:.2f}; from the network with the least time for a MAC to that with the most it is "
        f"a factor of {max(pairs) / min(pairs):.1f}."
    )


def draw(document: Document, figure: Any) -> None:
    """Best so far over the number of networks trained, with the middle 90 % of the replays.

    With latency as the cost, latency against MACs beside it.
    """
    if "costs" in document:
        figure.set_size_inches(12, 5)
        axes, beside = figure.subplots(1, 2)
        costs = document["costs"]
        beside.plot([m / 1e6 for m in costs["macs"]], [1e3 * s for s in costs["latency"]], ".")
        beside.set_yscale("log")
        beside.yaxis.set_major_formatter("{x:g}")
        beside.set_xlabel("million MACs")
        beside.set_ylabel("measured latency in ms")
        beside.set_title(f"rank correlation {costs['rank_correlation']:.2f}", fontsize=10)
        beside.grid(alpha=0.3)
    else:
        axes = figure.subplots()
    for name, curve in document["best_so_far"].items():
        x = range(1, len(curve["mean"]) + 1)
        (line,) = axes.plot(x, curve["mean"], label=f"{name}: mean of {document['times']}")
        axes.fill_between(x, curve["low"], curve["high"], alpha=0.2, color=line.get_color())
    axes.axhline(document["mean_of_table"], color="0.5", linestyle=":", label="mean of the table")
    axes.set_xlabel("networks trained")
    axes.set_ylabel("reward of the best so far, with the unseen seed")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
