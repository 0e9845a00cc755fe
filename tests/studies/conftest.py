"""Trainings that take no time."""

from __future__ import annotations

import pytest

import effkernels.studies.store
from studies import FakeTrainings


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTrainings:
    """Stores and trainers call it in the place of ``train_network``."""
    made = FakeTrainings()
    monkeypatch.setattr(effkernels.studies.store, "train_network", made)
    return made
