"""What a call needs at the least."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What a call cannot do without: bytes of memory traffic, and multiply-accumulates."""

    bytes: int
    macs: int
