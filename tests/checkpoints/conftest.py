"""Small state dicts with every value random, so that a tensor in the wrong place is noticed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import effkernels


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Give BatchNorm weights, biases and statistics that are neither 0 nor 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                # Small, so that an eps of 1e-3 and one of 1e-5 give other outputs.
                (module.running_var, 0.01, 0.2),
            ):
                with torch.no_grad():
                    tensor.uniform_(low, high, generator=generator)
    return model


@pytest.fixture
def randomised(seed: int) -> Callable[[nn.Module], nn.Module]:
    return lambda model: randomise(model, seed)


@pytest.fixture(scope="session")
def _b0() -> dict[str, Tensor]:
    return randomise(effkernels.create_model("efficientnet_b0"), 0).state_dict()


@pytest.fixture
def b0_state(_b0: dict[str, Tensor]) -> dict[str, Tensor]:
    """A whole B0 in the effkernels format; each test gets tensors of its own."""
    return {key: value.clone() for key, value in _b0.items()}


@pytest.fixture
def b0() -> nn.Module:
    return effkernels.create_model("efficientnet_b0")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here runs as on a machine without network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
