"""What .ci/run reads out of the README, of the demo and of pytest's logs."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from source_tree import ROOT


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ci_checks", ROOT / ".ci" / "checks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_commands(checks: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text()
    assert checks.readme_command(readme, 1) == 'pip install ".[demo]" && effkernels demo'
    assert checks.readme_command(readme, 2) == 'pip install ".[test,oracles]" && pytest'


def said(*first: str) -> dict[str, list[dict[str, object]]]:
    return {"pictures": [{"top": [{"name": name}, {"name": "espresso"}]} for name in first]}


def test_demo(checks: ModuleType) -> None:
    assert checks.check_demo(said("tabby", "espresso")) is None
    assert "cat picture" in checks.check_demo(said("tow truck", "espresso"))
    assert "coffee picture" in checks.check_demo(said("Egyptian cat", "cup"))


def test_count(checks: ModuleType) -> None:
    logs = [
        "== 3 failed in 4.20s ==\n===== 7 passed, 2 errors in 61.00s (0:01:01) =====",
        "no tests here: 5 failed in my head",
        "== 30 passed in 1.00s ==\n",
    ]
    assert checks.count(logs) == (37, 2)
