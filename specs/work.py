"""The minimum that a call needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """The minimum that a call needs: bytes of memory traffic, and multiply-accumulates."""

    bytes: int
    macs: int
