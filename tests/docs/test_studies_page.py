"""The stored results of the studies: each page is that of its document, and the commands of the page are accepted."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from effkernels.cli.study import _DRAWN, _STUDIES
from effkernels_cli.studies import study
from source_tree import ROOT

FOLDER = ROOT / "docs/studies"
STORED = {
    "grid": "grid",
    "grid_macs": "grid",
    "comparison": "compare",
    "widths": "widths",
    "cam": "cam",
    "search": "search",
    "search_latency": "search",
    "mnas": "mnas",
    "final": "final",
    "figures": "figures",
}


@pytest.mark.parametrize("name", STORED)
def test_a_page_is_that_of_its_document(name: str) -> None:
    document = json.loads((FOLDER / f"{name}.json").read_text())
    assert document["study"] == name
    shown: Any = {**_STUDIES, **_DRAWN}[STORED[name]]
    assert (FOLDER / f"{name}.md").read_text() == shown.page(document).rstrip() + "\n"


def test_every_study_is_stored_and_shown() -> None:
    assert set(STORED.values()) == set(_STUDIES) | set(_DRAWN)
    page = (FOLDER / "README.md").read_text()
    for name in STORED:
        assert f"({name}.png)" in page, name
        assert f"({name}.md)" in page, name
        assert (FOLDER / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_commands_of_the_page() -> None:
    page = (FOLDER / "README.md").read_text()
    commands = re.findall(r"^effkernels study (.*)$", page, re.MULTILINE)
    known = {
        command.callback.__name__: command
        for command in study.registered_commands
        if command.callback
    }
    assert {shlex.split(line, comments=True)[0] for line in commands} == set(known)
