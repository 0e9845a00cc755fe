"""Kernels also for shapes that others are counted to be faster for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from effkernels._backends import limits


@contextmanager
def whatever_is_faster() -> Iterator[None]:
    """Inside of the block the cuda backend takes what it has a kernel for."""
    with patch.object(limits, "why_two_kernels", lambda *_: None):
        yield
