"""What tests of models share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import effkernels


@pytest.fixture(params=["cpu", "torch"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The backend that a test runs on: compiled CPU kernels, where they are built, and plain PyTorch."""
    name: str = request.param
    if not effkernels.backends()[name].available:
        pytest.skip(f"no {name} backend")
    with effkernels.use_backend(name):
        yield name
