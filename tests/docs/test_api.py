"""The pages of docs/api say what the docstrings say."""

from __future__ import annotations

import importlib.util

import pytest

from source_tree import ROOT

API = ROOT / "docs" / "api"


def written() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("write_api", API / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: dict[str, str] = module.pages()
    return pages


def test_every_page_is_as_the_docstrings_are() -> None:
    pages = written()
    assert {path.name for path in API.glob("*.md")} == set(pages)
    changed = [name for name, text in pages.items() if (API / name).read_text() != text]
    if changed:
        pytest.fail(f"run `python docs/api/write.py`: it changes {', '.join(changed)}")


def test_every_public_name_is_there() -> None:
    pages = written()
    import effkernels

    for name in effkernels.__all__:
        if not name.startswith("_"):
            assert f"\n## {name}\n" in pages["effkernels.md"]
