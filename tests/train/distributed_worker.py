"""One of two processes under torchrun: each of its trainings is with half of the batch."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import distributed

sys.path.append(str(Path(__file__).parents[1] / "support"))

from effkernels import train
from training import make_job

if __name__ == "__main__":
    pictures, output, *jobs = sys.argv[1:]
    leave = distributed.destroy_process_group
    distributed.destroy_process_group = lambda: None  # they can meet only once
    for name in jobs:
        batch_norm, accumulate = name.split("-")
        made = make_job(
            Path(pictures),
            Path(output) / name,
            batch_size=2 // int(accumulate),
            accumulate=int(accumulate),
            precision="float64",
            batch_norm=batch_norm,
            dropout=0.0,
            drop_path=0.0,
            epochs=1,
        )
        train.run(made)
        distributed.init_process_group = lambda _: None
    leave()
