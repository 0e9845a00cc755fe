"""``python -m benchmarks.profiles FOLDER``: where the time of models goes; on a GPU kernel by kernel, on a CPU by kinds
of work.

For each model and batch a table, NAME-BATCH.txt, and the same with the machine as NAME-BATCH.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

import effkernels
from benchmarks.harness.device import TYPES, Device
from benchmarks.harness.machine import describe

CASES = {
    "cuda": (
        ("efficientnet_b0", 1),
        ("efficientnet_b0", 128),
        ("efficientnet_b4", 1),
        ("efficientnet_b4", 64),
    ),
    "cpu": (
        ("efficientnet_b0", 1),
        ("efficientnet_b0", 16),
        ("efficientnet_b4", 1),
        ("efficientnet_lite0", 1),
    ),
}
"""Models and batches, by the kind of device."""
RUNS = 50


def write(folder: Path, name: str, batch: int, device: str, runs: int) -> str:
    """Profile a model with random weights in its device's default type, and write what was found; returns the text."""
    kind = Device(device, TYPES[device][0])
    model = kind.put(effkernels.create_model(name)).eval()
    side = model.config.resolution
    images = kind.put(torch.randn(batch, model.in_channels, side, side))
    found = effkernels.profile(model, images, runs=runs)
    path = folder / f"{name}-{batch}.json"
    path.write_text(json.dumps({"machine": describe(), "profile": found.as_dict()}, indent=1))
    path.with_suffix(".txt").write_text(f"{found}\n")
    return str(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = parser().parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, batch in CASES[options.device]:
        if options.only is None or options.only in f"{name}-{batch}":
            print(write(options.folder, name, batch, options.device, options.runs), flush=True)
            print()
    return 0


def parser() -> argparse.ArgumentParser:
    """Of the command's arguments."""
    made = argparse.ArgumentParser("python -m benchmarks.profiles", description=__doc__)
    made.add_argument("folder", type=Path)
    made.add_argument("--device", choices=CASES, default="cuda")
    made.add_argument("--runs", type=int, default=RUNS)
    made.add_argument("--only", metavar="TEXT", help="only those with this in NAME-BATCH")
    return made


if __name__ == "__main__":
    raise SystemExit(main())
