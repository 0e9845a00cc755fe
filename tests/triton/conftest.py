"""Where the Triton kernels run: in the interpreter everywhere, and on a GPU where there is one."""

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


@pytest.fixture(scope="session")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patches:
        yield patches


@pytest.fixture(
    scope="session", params=["interpreter", pytest.param("gpu", marks=pytest.mark.gpu)], ids=str
)
def runner(request: pytest.FixtureRequest) -> Runner:
    """Computes ops with the Triton kernels."""
    if request.param == "gpu":
        # Of small maps too, programs do several parts of large tiles; and of one image several programs make gates.
        patches = request.getfixturevalue("patched")
        patches.setattr("effkernels.triton.launch.BUSY", 3)
        patches.setattr("effkernels.triton.depthwise_conv_bn_act._AT_ONCE", 1)
        patches.setattr("effkernels.triton.squeeze_excite._REPEATED", 1)
        return Gpu("triton")
    return request.getfixturevalue("interpreter")
