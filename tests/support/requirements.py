"""Marks of tests that need something that a build may lack."""

from __future__ import annotations

import pytest

import effkernels

needs_cpu_kernels = pytest.mark.skipif(
    not effkernels.backends()["cpu"].available, reason="the cpu backend is not built"
)
