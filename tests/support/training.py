"""Small trainings: pictures of a few pixels, and networks that take milliseconds a step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from effkernels import train

MODEL = "efficientnet_lite0"
SIDE = 32
# Neither torchvision nor timm is needed, and nothing is random.
PLAIN: dict[str, Any] = {
    "epochs": 2,
    "lr": 0.001,
    "lr_batch": None,
    "warmup_epochs": 0.0,
    "augment": "none",
    "crop": "centre",
    "mixup": 0.0,
    "cutmix": 0.0,
    "erase": 0.0,
    "ema": 0.9,
    "clip": 1.0,
    "resolution": SIDE,
}


def make_pictures(folder: Path, classes: dict[str, int], seed: int = 0) -> Path:
    """A folder of classes, each with so many noisy pictures of a colour of its own."""
    generator = np.random.default_rng(seed)
    for number, (name, count) in enumerate(classes.items()):
        inside = folder / name
        inside.mkdir(parents=True, exist_ok=True)
        colour = np.zeros(3)
        colour[number % 3] = 160
        for index in range(count):
            pixels = generator.integers(0, 90, (SIDE + 4, SIDE + 4, 3)) + colour
            Image.fromarray(pixels.astype(np.uint8)).save(inside / f"{index:03}.png")
    return folder


def make_job(data: Path, output: Path, *, recipe: str = "sgd", **changes: Any) -> train.Job:
    """A job of seconds; ``changes`` may be fields of the job or of its recipe."""
    known = {name for name in train.Job.__dataclass_fields__ if name != "recipe"}
    own = {name: changes.pop(name) for name in list(changes) if name in known}
    made = train.recipe_for(MODEL, recipe, **{**PLAIN, **changes})
    job = train.Job(
        MODEL,
        str(data),
        output,
        made,
        batch_size=4,
        width=0.25,
        depth=0.25,
        save_every=2,
        curves=False,
    )
    return replace(job, **own)
