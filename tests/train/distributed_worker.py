"""One of two processes under torchrun: trains with half of the batch."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))

from effkernels import train
from training import make_job

if __name__ == "__main__":
    pictures, output, accumulate, batch_norm = sys.argv[1:]
    made = make_job(
        Path(pictures),
        Path(output),
        batch_size=2 // int(accumulate),
        accumulate=int(accumulate),
        precision="float64",
        batch_norm=batch_norm,
        dropout=0.0,
        drop_path=0.0,
        epochs=1,
    )
    train.run(made)
