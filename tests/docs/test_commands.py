"""The commands of the README and of the guides are accepted; not executed, because most would train or measure."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
from typer.testing import CliRunner

from effkernels_cli import app, scaling, studies, training
from source_tree import ROOT

PAGES = ("README.md", "docs/guide/training.md", "docs/studies/README.md", "docs/training/README.md")


def commands(page: Path) -> list[list[str]]:
    """The lines of its shell samples that begin with ``effkernels``, with those that they continue on."""
    samples = re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(samples).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("effkernels ")]


@pytest.mark.parametrize("page", PAGES)
def test_options_are_accepted_and_handed_on(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def record(name: str, values: dict[str, Any]) -> None:
        called.append(name)

    for module in (app, scaling, studies, training):
        monkeypatch.setattr(module, "call", record)
    found = commands(ROOT / page)
    assert len(found) >= 2
    for command in found:
        result = CliRunner().invoke(app.app, command[1:])
        assert result.exit_code == 0, (command, result.output)
    assert len(called) == sum("--help" not in command for command in found)
