"""The CUDA tools, if this machine has them."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from effkernels_build.cuda import Nvcc, find_nvcc


@pytest.fixture(scope="session")
def nvcc() -> Nvcc:
    found = find_nvcc(os.environ)
    if not isinstance(found, Nvcc):
        pytest.skip(found.reason)
    return found


@pytest.fixture(scope="session")
def cuobjdump() -> str:
    """The toolkit's cuobjdump, else the one that triton ships."""
    found = find_nvcc(os.environ)
    folders = [found.home / "bin"] if isinstance(found, Nvcc) else []
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        folders.append(Path(triton.origin).parent / "backends" / "nvidia" / "bin")
    for folder in folders:
        if (folder / "cuobjdump").is_file():
            return str(folder / "cuobjdump")
    pytest.skip("no cuobjdump in the CUDA toolkit or in triton")
