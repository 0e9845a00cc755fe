"""A complete B0 state dict with random values, so that tests notice a misplaced tensor."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import effkernels
from randomise import randomise


@pytest.fixture(scope="session")
def _b0() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return randomise(effkernels.create_model("efficientnet_b0")).state_dict()


@pytest.fixture
def b0_state(_b0: dict[str, Tensor]) -> dict[str, Tensor]:
    """In the effkernels format; each test gets its own tensors."""
    return {key: value.clone() for key, value in _b0.items()}


@pytest.fixture(scope="session")
def _fresh() -> effkernels.EfficientNet:
    return effkernels.create_model("efficientnet_b0")


@pytest.fixture
def b0(_fresh: effkernels.EfficientNet) -> effkernels.EfficientNet:
    """A model to load into, with fresh weights: a copy, because drawing them takes longer."""
    return copy.deepcopy(_fresh)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every test here run as on a machine without network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
