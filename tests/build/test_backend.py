"""Which torch a build asks for: none, if the environment has one that is tested."""

from __future__ import annotations

import importlib.util
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from effkernels_build import backend
from effkernels_build.toolchain import Missing, Torch, find_torch


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """As in an isolated build: torch cannot be imported, and the environment holds the release that is given."""
    find_spec = importlib.util.find_spec

    def hide(name: str, package: str | None = None) -> Any:
        return None if name == "torch" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", hide)
    monkeypatch.setattr(sysconfig, "get_path", {"purelib": str(tmp_path)}.__getitem__)

    def install(version: str) -> Path:
        root = tmp_path / "torch"
        root.mkdir()
        (root / "version.py").write_text(f"__version__ = {version!r}\ncuda = None\n")
        return root

    return install


REQUIRES = backend.get_requires_for_build_wheel, backend.get_requires_for_build_editable


@pytest.mark.parametrize("version", ["2.11.0", "2.13.0+cpu", "2.15.1+cu132", "2.14.0a0+git1234"])
def test_the_environments_torch(isolated: Callable[[str], Path], version: str) -> None:
    root = isolated(version)
    assert find_torch() == Torch(version, None, root)
    for requires in REQUIRES:
        assert not [name for name in requires() if name.startswith("torch")]


@pytest.mark.parametrize("version", [None, "2.10.1", "2.16.0"])
def test_a_tested_release(isolated: Callable[[str], Path], version: str | None) -> None:
    if version is None:
        assert isinstance(find_torch(), Missing)
    else:
        isolated(version)
    for requires in REQUIRES:
        assert "torch>=2.11,<2.16" in requires()
