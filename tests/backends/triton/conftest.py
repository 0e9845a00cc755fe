"""Where the Triton kernels run: always in the interpreter, and on a GPU if there is one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from interpreter import Interpreter
from parity import Gpu, Runner

TRITON = importlib.util.find_spec("triton") is not None


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    if not TRITON:
        pytest.skip("triton is not installed")
    made = Interpreter(tmp_path_factory.mktemp("interpreter"))
    yield made
    made.worker.close()


@pytest.fixture(
    scope="session", params=["interpreter", pytest.param("gpu", marks=pytest.mark.gpu)], ids=str
)
def runner(request: pytest.FixtureRequest) -> Runner:
    """Computes ops with the Triton kernels."""
    if request.param == "gpu":
        from several_parts import several_parts

        return Gpu("triton", several_parts)
    return request.getfixturevalue("interpreter")
