"""The search that made B0 on MNAS's whole space: each network is trained when a search asks for it.

Source: Tan and Le 2019 (arXiv 1905.11946), section 4, and Tan et al. 2019, "MnasNet" (arXiv 1807.11626). The space has
millions of networks, so that there is no table to replay searches on: each strategy runs once, and what it chose is
judged by seeds that it did not see.
"""

from __future__ import annotations

from random import Random
from typing import Any

from effkernels.studies.architecture import Architecture
from effkernels.studies.evolution import EXPONENT, STRATEGIES, best_so_far, reward
from effkernels.studies.latencies import Latencies
from effkernels.studies.replaying import TABLE_SETTING
from effkernels.studies.report import Document, data_title, table, with_error
from effkernels.studies.setting import Setting, epochs_of
from effkernels.studies.space import MNAS, Choice, SearchSpace
from effkernels.studies.statistics import mean_and_error
from effkernels.studies.store import Result, Trainer
from effkernels.studies.training import Training
from effkernels.train.extras import need

SEEN = 0
"""The seed of the trainings that a search sees."""
_SMALLEST_BUDGET = 2


def live_search(
    trainer: Trainer,
    setting: Setting = TABLE_SETTING,
    space: SearchSpace = MNAS,
    *,
    budget: int = 40,
    judges: int = 2,
    measured: Latencies | None = None,
) -> Document:
    """Let evolution and random search train networks of a space, and judge what each chose, beside the base.

    Args:
        trainer, setting: of the trainings; what is in the store is not trained again, so that a search that was
            stopped goes on.
        space: to search.
        budget: networks that each strategy trains, at least 2.
        judges: seeds that no search sees, at least 2, with which the choices and the base are trained.
        measured: makes latency on this device the cost in the objective, in place of MACs.

    Returns:
        For each strategy ``tried`` (accuracy, MACs, latency where it is measured, and reward of each network in
        order), ``best_so_far`` (rewards that it saw), and its ``choice`` with accuracies and rewards of the judges;
        ``base`` likewise. Costs in the objective are relative to the base's.

    Raises:
        ValueError: an argument out of range.
        OutOfTime: the trainer's time is over; the same call goes on.
    """
    if budget < _SMALLEST_BUDGET:
        raise ValueError(f"budget must be at least {_SMALLEST_BUDGET} networks, got {budget}")
    if judges < 2:
        raise ValueError(f"judges must be at least 2 seeds, for error bars; got {judges}")
    random = Random(0)
    drawn = [space.architecture(space.random(random)) for _ in range(budget)]
    base = setting.base.network
    known = [Training(network, setting, SEEN) for network in (*drawn, base)]
    known += [Training(base, setting, SEEN + 1 + judge) for judge in range(judges)]
    trainer.expect(
        known, known[:budget] * (len(STRATEGIES) - 1) + known[-judges:] * len(STRATEGIES)
    )
    judge = _Judge(trainer, setting, measured)
    runs = {}
    chosen: dict[str, Choice] = {}
    for name, strategy in STRATEGIES.items():
        tried: list[dict[str, Any]] = []

        def evaluate(choice: Choice, tried: list[dict[str, Any]] = tried) -> float:
            row = judge.seen(space.architecture(choice))
            tried.append(row)
            return float(row["reward"])

        found = strategy(space, evaluate, budget, Random(0))
        best = best_so_far(found)
        rewards = dict(found)
        chosen[name] = best[-1]
        runs[name] = {"tried": tried, "best_so_far": [rewards[choice] for choice in best]}
    for name, choice in chosen.items():
        architecture = space.architecture(choice)
        described = space.describe(choice)
        runs[name]["choice"] = {"choice": described, **judge.judged(architecture, judges)}
    return {
        "study": "mnas" if measured is None else "mnas_latency",
        "setting": setting.to_json(),
        "objective": {"exponent": EXPONENT, "cost": judge.cost, "target": judge.target},
        "choices": space.size,
        "budget": budget,
        "judges": judges,
        "strategies": runs,
        "base": judge.judged(base, judges),
    }


class _Judge:
    """Trains a network and weighs its accuracy against its cost over the base's."""

    def __init__(self, trainer: Trainer, setting: Setting, measured: Latencies | None) -> None:
        self._trainer, self._setting, self._measured = trainer, setting, measured
        self.cost = "macs" if measured is None else "latency"
        base = setting.base.network
        self.target: float = self._trained(base, [SEEN])[0][self.cost]

    def _trained(self, architecture: Architecture, seeds: list[int]) -> list[Result]:
        trainings = [Training(architecture, self._setting, seed) for seed in seeds]
        rows = self._trainer.results(trainings)
        if self._measured is None:
            return rows
        return [{**row, "latency": self._measured(architecture)} for row in rows]

    def _reward(self, row: Result) -> float:
        return reward(row["accuracy"], row[self.cost], self.target)

    def seen(self, architecture: Architecture) -> dict[str, Any]:
        """The training that a search sees."""
        (row,) = self._trained(architecture, [SEEN])
        kept = ("accuracy", "macs", "params", "latency")
        return {**{k: row[k] for k in kept if k in row}, "reward": self._reward(row)}

    def judged(self, architecture: Architecture, judges: int) -> dict[str, Any]:
        """What it is worth with seeds that no search saw."""
        rows = self._trained(architecture, [SEEN + 1 + judge for judge in range(judges)])
        mean, error = mean_and_error([row["accuracy"] for row in rows])
        rewards, rewards_error = mean_and_error([self._reward(row) for row in rows])
        return {
            "network": architecture.to_json(),
            **{k: rows[0][k] for k in ("macs", "params", "latency") if k in rows[0]},
            "accuracies": [row["accuracy"] for row in rows],
            "mean": mean,
            "standard_error": error,
            "reward": rewards,
            "reward_error": rewards_error,
        }


def page(document: Document) -> str:
    """The document as Markdown."""
    size, objective = document["setting"], document["objective"]
    by_latency = objective["cost"] == "latency"
    rows = []
    for name, run in document["strategies"].items():
        one = run["choice"]
        rows.append([f"{name}'s choice", f"{run['best_so_far'][-1]:.4f}", *_cells(one, by_latency)])
    rows.append(["base", "-", *_cells(document["base"], by_latency)])
    networks = [
        f"- {name}: {', '.join(f'{what}: {value}' for what, value in run['choice']['choice'].items())}"
        for name, run in document["strategies"].items()
    ]
    return "\n\n".join(
        [
            "# The search that made B0, on MNAS's whole space",
            f"Of {document['choices']:,} choices each strategy trained {document['budget']} networks: "
            f"{size['pictures']} pictures of {data_title(size)}, {epochs_of(size)} epoch, one seed. "
            f"The objective is ACC * ({'latency' if by_latency else 'MACs'} / the base's) ^ "
            f"{objective['exponent']:g}, with the accuracy on "
            f"{size['held_out']} training pictures held out. What each chose, and the base, were then trained with "
            f"{document['judges']} seeds that no search saw. Each strategy ran once: this shows how the search works, "
            "and does not compare the strategies; for that there is the replay on a table (`effkernels study search`).",
            table(
                ["network", "reward seen", "reward of the judges", "accuracy, %", "MACs",
                 *(["ms"] if by_latency else []), "params"],
                rows,
            ),
            "\n".join(networks),
            f"![rewards]({document['study']}.png)",
        ]
    )  # fmt: skip


def _cells(one: dict[str, Any], by_latency: bool) -> list[str]:
    return [
        f"{one['reward']:.4f} ± {one['reward_error']:.4f}",
        with_error(one["mean"], one["standard_error"]),
        f"{one['macs'] / 1e6:.3f}M",
        *([f"{1e3 * one['latency']:.2f}"] if by_latency else []),
        f"{one['params']:,}",
    ]


def draw(document: Document, figure: Any) -> None:
    """Rewards in the order of the search with the best so far, and accuracy against cost."""
    figure.set_size_inches(12, 5)
    rewards, costs = figure.subplots(1, 2)
    cost = document["objective"]["cost"]
    factor, title = (1e3, "measured latency in ms") if cost == "latency" else (1e-6, "million MACs")
    for index, (name, run) in enumerate(document["strategies"].items()):
        colour = f"C{index}"
        x = range(1, len(run["tried"]) + 1)
        rewards.plot(x, [row["reward"] for row in run["tried"]], ".", color=colour, alpha=0.5)
        rewards.plot(x, run["best_so_far"], color=colour, label=f"{name}: best so far, as seen")
        judged = run["choice"]
        rewards.errorbar(
            len(x) + 1 + index,
            judged["reward"],
            judged["reward_error"],
            fmt="D",
            color=colour,
            capsize=3,
            label=f"{name}'s choice with seeds not seen",
        )
        costs.plot(
            [factor * row[cost] for row in run["tried"]],
            [100 * row["accuracy"] for row in run["tried"]],
            ".",
            color=colour,
            alpha=0.6,
            label=name,
        )
    base = document["base"]
    rewards.axhline(base["reward"], color="0.5", linestyle=":", label="base, with these seeds")
    costs.errorbar(
        factor * base[cost],
        100 * base["mean"],
        100 * base["standard_error"],
        fmt="s",
        color="tab:red",
        capsize=3,
        label="base",
    )
    rewards.set_xlabel("networks trained")
    rewards.set_ylabel("reward")
    costs.set_xlabel(title)
    costs.set_xscale("log")
    ticks = need("matplotlib.ticker", "the picture of a study", extra="studies")
    costs.xaxis.set_major_locator(ticks.LogLocator(subs=(1.0, 2.0, 5.0)))
    costs.xaxis.set_major_formatter("{x:g}")
    costs.xaxis.set_minor_formatter("")
    costs.set_ylabel("accuracy on pictures held out, %")
    for axes in (rewards, costs):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
