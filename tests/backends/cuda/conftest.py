"""Where the CUDA kernels run: in the host shim everywhere, and on a GPU where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from cuda_kernels import Shim
from effkernels import use_backend
from effkernels._backends.compiled import compiled_status
from effkernels_build.ninja_build import CompileError
from host_shim import HostShim, ShimMissingError
from parity import Gpu, Runner


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that runs in the host shim is slow: compiling it takes minutes of processor time."""
    for item in items:
        if "host shim" in item.name or "shim" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostShim]:
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which all processes of this run share
    try:
        made = HostShim(folder / "host_shim")
    except ShimMissingError as missing:
        pytest.skip(f"no host shim: {missing}")
    except CompileError as error:
        pytest.fail(error.log)
    yield made
    made.close()


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    reason = compiled_status()["cuda"]
    if reason is not None:
        pytest.skip(f"no _C_cuda: {reason}")
    return Gpu("cuda")


@pytest.fixture
def on_the_kernels(gpu: Gpu) -> Iterator[None]:
    """Networks run on the CUDA kernels, without gradients."""
    with use_backend("cuda"), torch.no_grad():
        yield


@pytest.fixture(
    scope="session", params=["host shim", pytest.param("gpu", marks=pytest.mark.gpu)], ids=str
)
def runner(request: pytest.FixtureRequest) -> Runner:
    """Computes ops with the CUDA kernels."""
    if request.param == "gpu":
        return request.getfixturevalue("gpu")
    return Shim(request.getfixturevalue("shim"))
