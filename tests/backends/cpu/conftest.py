"""All tests in this folder are about the compiled kernels."""

from __future__ import annotations

import pytest

from effkernels._backends.compiled import compiled_status


@pytest.fixture(autouse=True)
def _compiled_kernels() -> None:
    reason = compiled_status()["cpu"]
    if reason is not None:
        pytest.skip(f"no _C: {reason}")
