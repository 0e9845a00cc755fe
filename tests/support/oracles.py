"""Other projects' EfficientNets, with which the tests compare ours."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


def oracle(name: str) -> ModuleType:
    """The module `name`; skips if it does not import (a failure with
    EFFKERNELS_TEST_ORACLES=required).

    May be called in a test or at the top of a test file. With a CPU-only torch, torchvision
    raises RuntimeError on import, and timm imports torchvision.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:
        reason = f"oracle {name} does not import: {type(error).__name__}: {error}".splitlines()[0]
    pytest.skip(reason, allow_module_level=True)
