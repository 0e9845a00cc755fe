"""Other people's EfficientNets, which the tests compare ours with."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


def oracle(name: str) -> ModuleType:
    """The module `name`, or a skip (which EFFKERNELS_TEST_ORACLES=required turns into a failure).

    May be called in a test or at the top of a test file. Beside a CPU-only torch, torchvision
    raises RuntimeError on import, and timm imports torchvision.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:
        reason = f"oracle {name} does not import: {type(error).__name__}: {error}".splitlines()[0]
    pytest.skip(reason, allow_module_level=True)
