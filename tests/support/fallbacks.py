"""Warnings about ops that ran on a slower backend."""

from __future__ import annotations

import pytest

import effkernels


def fallbacks(warned: pytest.WarningsRecorder) -> list[str]:
    """The messages of the fallback warnings among ``warned``."""
    return [str(w.message) for w in warned if issubclass(w.category, effkernels.FallbackWarning)]
