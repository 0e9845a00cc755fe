"""The page of training results shows what is stored beside it."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import effkernels_cli.training as options
from effkernels_cli.app import app
from source_tree import ROOT

FOLDER = ROOT / "docs/training"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script that writes the page, in a folder of its own."""
    pytest.importorskip("matplotlib")
    copy = shutil.copytree(FOLDER, tmp_path / "training", ignore=shutil.ignore_patterns("*.png"))
    spec = importlib.util.spec_from_file_location("reproduce", copy / "reproduce.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "reproduce", module)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_stored_results(script: Any) -> None:
    results = json.loads((FOLDER / "results.json").read_text())
    script.write(results)
    assert (script.FOLDER / "README.md").read_text() == (FOLDER / "README.md").read_text()
    assert (script.FOLDER / "curves.png").stat().st_size > 10_000
    known = {f"{training.name}-{seed}" for training in script.TRAININGS for seed in training.seeds}
    assert set(results) <= known


def test_its_commands_are_accepted(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would train: the options are read, and handed on."""
    called: list[dict[str, Any]] = []
    monkeypatch.setattr(options, "call", lambda name, values: called.append(values))
    for training in script.TRAININGS:
        command = shlex.split(training.command(1, Path("runs")))
        result = CliRunner().invoke(app, command[1:])
        assert result.exit_code == 0, result.output
    assert [values["seed"] for values in called] == [1] * len(script.TRAININGS)
    assert all(values["data"] == "fashion-mnist" for values in called)
