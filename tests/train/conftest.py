"""Pictures to train on, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from effkernels import train
from training import make_job, make_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes: 22 pictures to train on, 9 to validate with."""
    folder = tmp_path_factory.mktemp("pictures")
    make_pictures(folder / "train", {"blue": 8, "green": 7, "red": 7})
    make_pictures(folder / "val", {"blue": 3, "green": 3, "red": 3}, seed=1)
    return folder


@pytest.fixture(scope="session")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights that one epoch leaves: to start from, or a teacher's."""
    output = tmp_path_factory.mktemp("trained")
    return str(train.run(make_job(pictures, output, epochs=1)).weights)
