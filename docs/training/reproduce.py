"""Runs the trainings that this folder's README.md reports, and writes it: ``python docs/training/reproduce.py``.

Each training is one command of ``effkernels`` that ends within minutes on one core. What is in ``results.json`` is not
run again; a training that was interrupted goes on. First settings are compared by pictures held out of the training
pictures; then the test pictures are looked at once for each chosen training.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
SEEDS = (0, 1, 2)
BEGIN, END = "<!-- results: written by reproduce.py -->", "<!-- results: end -->"

Results = dict[str, Any]
"""One entry for each training, by its name and seed: command, history, processor minutes, and scores on the test."""

DATA = "--data fashion-mnist --holdout 5000 --subset 3000 --resolution 48 --area 0.5"
HOW = "--recipe transfer --ema 0.99 --drop-path 0 --device cpu --workers 0"
LITE0 = f"{DATA} {HOW} --model efficientnet_lite0 --epochs 4"
STUDENT = f"{DATA} {HOW} --model efficientnet_lite0 --width 0.5 --depth 0.5 --epochs 5"
TEACHER = "--teacher {runs}/fine-tuned-{seed}/model.safetensors"


@dataclass(frozen=True)
class Training:
    """A name, and the options of ``effkernels train``; ``title`` is None for settings that are only tried."""

    name: str
    options: str
    title: str | None = None

    @property
    def seeds(self) -> Sequence[int]:
        """Settings are tried with one seed."""
        return SEEDS if self.title else SEEDS[:1]

    def command(self, seed: int, runs: Path) -> str:
        """What to type."""
        options = self.options.format(runs=runs, seed=seed)
        return f"effkernels train {options} --seed {seed} --output {runs / self.name}-{seed}"


SGD = "--lr 0.1 --warmup-epochs 0.5"
ADAMW = "--optimizer adamw --lr 0.003 --weight-decay 0.05 --warmup-epochs 0.5"

TRAININGS = (
    Training(
        "fine-tuned", f"{LITE0} --weights imagenet --lr 0.02", "Lite0 from ImageNet's weights"
    ),
    Training("fine-tuned-faster", f"{LITE0} --weights imagenet --lr 0.05"),
    Training("scratch", f"{LITE0} {ADAMW}", "Lite0 from random weights"),
    Training("scratch-sgd", f"{LITE0} {SGD}"),
    Training("alone", f"{STUDENT} {ADAMW}", "student alone"),
    Training(
        "distilled",
        f"{STUDENT} {ADAMW} {TEACHER} --distillation 0.7 --temperature 2",
        "student distilled from the fine-tuned Lite0",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder for weights and logs"
    )
    parser.add_argument("--only", nargs="*", help="names of trainings; all by default")
    parser.add_argument(
        "--tune", action="store_true", help="only the first seed, and no test pictures"
    )
    parser.add_argument("--write", action="store_true", help="only write the page")
    chosen = parser.parse_args()
    results: Results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not chosen.write:
        for training in TRAININGS:
            if not chosen.only or training.name in chosen.only:
                for seed in training.seeds[:1] if chosen.tune else training.seeds:
                    run(training, seed, chosen.runs, results, test=not chosen.tune)
    write(results)


def run(training: Training, seed: int, runs: Path, results: Results, *, test: bool) -> None:
    """Train, if that is not done yet; then evaluate on the test pictures, if that was not done and is wanted."""
    name = f"{training.name}-{seed}"
    if name not in results:
        document, seconds = called(f"{training.command(seed, runs)} --resume --json")
        results[name] = {"history": document["history"], "processor_minutes": seconds / 60}
        save(results)
    if test and training.title and "test" not in results[name]:
        found, _ = called(
            f"effkernels evaluate fashion-mnist -w {runs}/{name}/model.safetensors --json"
        )
        results[name]["test"] = {key: found[key] for key in ("top1", "loss", "calibration_error")}
        save(results)


def called(command: str) -> tuple[Any, float]:
    """The JSON document that a command prints, and the processor seconds that it took."""
    print(command, file=sys.stderr, flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Not the package in the folder where this is run: a clone's has no compiled modules.
    safe = os.environ | {"PYTHONSAFEPATH": "1"}
    words = [sys.executable, "-m", "effkernels.cli", *shlex.split(command)[1:]]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, env=safe)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout), seconds


def save(results: Results) -> None:
    """Into this folder, after each training."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def write(results: Results) -> None:
    """The page's tables and curves, of what is there."""
    shown = [training for training in TRAININGS if training.title]
    lines = [
        "| | held-out pictures, top-1 | test pictures, top-1 | loss | calibration error | processor minutes |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for training in shown:
        runs = finished(training, results)
        tests = [run["test"] for run in runs if "test" in run]
        last = [run["history"][-1]["top1"] for run in runs]
        cells = [
            spread([100 * value for value in last], 2, " %"),
            spread([100 * test["top1"] for test in tests], 2, " %"),
            spread([test["loss"] for test in tests], 3),
            spread([100 * test["calibration_error"] for test in tests], 1, " %"),
            spread([run["processor_minutes"] for run in runs], 1),
        ]
        lines.append(f"| {training.title} | {' | '.join(cells)} |")
    lines += ["", "Settings, by the held-out pictures of the first seed:", ""]
    lines += ["| | options | top-1 |", "|---|---|---:|"]
    for training in TRAININGS:
        if run := results.get(f"{training.name}-{SEEDS[0]}"):
            own = training.options.removeprefix(LITE0).removeprefix(STUDENT).strip()
            own = own.replace(TEACHER, "--teacher ...")
            score = f"{100 * run['history'][-1]['top1']:.2f} %"
            lines.append(f"| {training.name} | `{own}` | {score} |")
    lines += [
        "",
        "The commands of the first seed; the test pictures with `evaluate`:",
        "",
        "```bash",
    ]
    lines += [wrapped(training.command(SEEDS[0], Path("runs"))) for training in shown]
    weights = f"runs/{shown[0].name}-{SEEDS[0]}/model.safetensors"
    lines += [f"effkernels evaluate fashion-mnist --weights {weights}", "```"]
    page = FOLDER / "README.md"
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    page.write_text("\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"]))
    draw(results)


def wrapped(command: str) -> str:
    """A long command on several lines, which part no option from its value."""
    together = re.sub(r"(--[\w-]+) (?!-)", "\\1\0", command)
    lines = textwrap.wrap(together, 110, break_long_words=False, break_on_hyphens=False)
    return " \\\n    ".join(lines).replace("\0", " ")


def finished(training: Training, results: Results) -> list[Any]:
    """What there is of a training, by seed."""
    names = [f"{training.name}-{seed}" for seed in training.seeds]
    return [results[name] for name in names if name in results]


def spread(values: Sequence[float], digits: int, unit: str = "") -> str:
    """Mean and standard deviation, and the number of values where one is missing."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}{unit} (1 seed)"
    apart = statistics.stdev(values)
    few = "" if len(values) == len(SEEDS) else f" ({len(values)} seeds)"
    return f"{statistics.mean(values):.{digits}f} ± {apart:.{digits}f}{unit}{few}"


def draw(results: Results) -> None:
    """Accuracy on the held-out pictures over the epochs: a thin line for each seed, a thick one for their mean."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    pairs = ("fine-tuned", "scratch"), ("distilled", "alone")
    for axes, names in zip(panels, pairs, strict=True):
        for training in TRAININGS:
            runs = finished(training, results) if training.name in names else []
            if not runs:
                continue
            curves = [[100 * row["top1"] for row in run["history"]] for run in runs]
            epochs = range(1, 1 + len(curves[0]))
            colour = f"C{names.index(training.name)}"
            for curve in curves:
                axes.plot(epochs, curve, color=colour, linewidth=0.8, alpha=0.5)
            mean = [statistics.mean(values) for values in zip(*curves, strict=True)]
            axes.plot(epochs, mean, color=colour, marker="o", label=training.title)
        axes.set_xlabel("epoch")
        axes.set_ylabel("top-1 on 5,000 held-out pictures, %")
        axes.set_xticks(range(1, 1 + max(len(line.get_xdata()) for line in axes.get_lines() or [])))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    figure.savefig(FOLDER / "curves.png", dpi=110)


if __name__ == "__main__":
    main()
