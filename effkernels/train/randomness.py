"""Random numbers that depend on the position in a training alone, so that it can go on from any position."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# What a seed is for: positions of one kind must not share the numbers of another.
PICTURE, STEP, SPLIT, WEIGHTS, SUBSET, SHARDS = range(6)


def derive(*position: int) -> int:
    """A seed of 63 bits for a position: the same on every machine, unrelated for neighbouring positions."""
    data = struct.pack(f"<{len(position)}q", *position)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it, the generators of Python, numpy and PyTorch (of CPUs) start from ``seed``; then they go on as before.

    The transforms of torchvision draw from PyTorch's, those of timm from the other two.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
