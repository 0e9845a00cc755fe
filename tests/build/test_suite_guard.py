"""The guard that keeps the suite off the wrong copy of the package."""

from __future__ import annotations

from importlib.metadata import Distribution
from pathlib import Path

import pytest

from suite_guard import absent_oracle, installed_package, too_few, wrong_copy, wrong_modules

LOADED = {"_C": None, "_C_cuda": None}
NO_CUDA = {"_C": None, "_C_cuda": "no nvcc"}
NOTHING = {"_C": "gone", "_C_cuda": "gone"}


def distribution(site: Path, direct_url: str | None = None) -> Distribution:
    folder = site / "effkernels-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Name: effkernels\nVersion: 0.1.0\n")
    (folder / "RECORD").write_text("effkernels/__init__.py,,\n")
    if direct_url is not None:
        (folder / "direct_url.json").write_text(direct_url)
    return Distribution.at(folder)


def test_installed_copy(tmp_path: Path) -> None:
    plain = distribution(tmp_path / "site", '{"dir_info": {}, "url": "file:///src"}')
    assert installed_package([plain]) == tmp_path / "site" / "effkernels"
    editable = '{"dir_info": {"editable": true}, "url": "file:///a%20b/src"}'
    in_place = distribution(tmp_path / "editable", editable)
    assert installed_package([in_place]) == Path("/a b/src/effkernels")


def test_source_tree_is_no_install(tmp_path: Path) -> None:
    (tmp_path / "effkernels.egg-info").mkdir()
    left_by_a_build = Distribution.at(tmp_path / "effkernels.egg-info")
    assert installed_package([left_by_a_build]) is None
    installed = distribution(tmp_path / "site")
    assert installed_package([left_by_a_build, installed]) == tmp_path / "site" / "effkernels"


def test_wrong_copy(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    assert wrong_copy(source, source, {}) is None
    assert "the installed one is" in str(wrong_copy(source, site, {}))
    assert "is not installed" in str(wrong_copy(source, None, {}))


def test_a_copy_that_is_asked_for(tmp_path: Path) -> None:
    copy, site = tmp_path / "copy", tmp_path / "site" / "effkernels"
    env = {"EFFKERNELS_TEST_COPY": str(copy)}
    for installed in (site, None):
        assert wrong_copy(copy / "effkernels", installed, env) is None
        for other in (site, copy, tmp_path / "effkernels"):
            assert f"set PYTHONPATH={copy}" in str(wrong_copy(other, installed, env))
    assert wrong_copy(site, site, {"EFFKERNELS_TEST_COPY": ""}) is None


@pytest.mark.parametrize(
    ("status", "expected"), [(LOADED, "_C,_C_cuda"), (NO_CUDA, "_C"), (NOTHING, ""), (LOADED, None)]
)
def test_right_modules(status: dict[str, str | None], expected: str | None) -> None:
    env = {} if expected is None else {"EFFKERNELS_TEST_EXPECT": expected}
    assert wrong_modules(status, env, "g++") is None


@pytest.mark.parametrize(
    ("status", "expected", "complaint"),
    [
        (NO_CUDA, "_C,_C_cuda", "_C_cuda is not loaded: no nvcc"),
        (LOADED, "_C", "_C_cuda is loaded, but not expected"),
        (LOADED, "_D", "the compiled modules are _C, _C_cuda"),
        (NOTHING, None, "_C is not loaded (gone), although there is g++"),
    ],
)
def test_wrong_modules(status: dict[str, str | None], expected: str | None, complaint: str) -> None:
    env = {} if expected is None else {"EFFKERNELS_TEST_EXPECT": expected}
    assert complaint in str(wrong_modules(status, env, "g++"))


def test_fallback_alone_is_fine_without_a_compiler() -> None:
    assert wrong_modules(NOTHING, {}, None) is None


def test_minimum() -> None:
    assert too_few(0, {}) is None
    assert too_few(10, {"EFFKERNELS_TEST_MINIMUM": "10"}) is None
    assert too_few(9, {"EFFKERNELS_TEST_MINIMUM": "10"}) is not None


def test_absent_oracle() -> None:
    required = {"EFFKERNELS_TEST_ORACLES": "required"}
    for skip in ("Skipped: could not import 'timm'", "oracle timm does not import: ImportError"):
        assert absent_oracle(skip, required)
        assert not absent_oracle(skip, {})
    assert not absent_oracle("no CUDA device", required)
