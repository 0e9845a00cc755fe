"""Wheels of the source tree, built without nvcc and without a compiler, and imported without other packages."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

import effkernels
from effkernels_build.modules import CPU_MODULE, FILE_NAMES
from effkernels_build.toolchain import Compiler, find_compiler
from source_tree import ROOT

# Looked up in the metadata: looking for pip's module would disable setuptools' patch of distutils.
_INSTALLED = {distribution.name for distribution in importlib.metadata.distributions()}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not {"pip", "setuptools"} <= _INSTALLED, reason="builds with pip and setuptools"
    ),
]

COPIED = ("effkernels", "effkernels_cli", "buildtools", "csrc")
REPORT = """
import json, sys
import effkernels
from effkernels._backends import compiled
json.dump({
    "file": effkernels.__file__,
    "status": dict(compiled.compiled_status()),
    "reasons": {name: status.reason for name, status in effkernels.backends().items()},
    "info": compiled.build_info(),
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the source tree, because builds leave folders behind."""
    copy = tmp_path_factory.mktemp("source")
    junk = shutil.ignore_patterns("__pycache__", "*.so", "_build_info.json", "*.egg-info")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, copy / folder, ignore=junk)
    for path in ROOT.iterdir():
        if (
            path.is_file()
            and path.suffix in {".py", ".toml", ".in", ".md", ""}
            and path.name[0] != "."
        ):
            shutil.copy(path, copy)
    return copy


def pip_wheel(source: Path, out: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-build-isolation", "--no-deps"]
    return subprocess.run(
        [*command, "--no-index", "-w", str(out), str(source)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def install_and_import(source: Path, folder: Path, **env: str) -> tuple[str, dict[str, Any]]:
    """The build's output, and what the package reports after it was installed into `folder`."""
    # A separate build folder, so that one build does not find the results of another.
    shutil.rmtree(source / "build", ignore_errors=True)
    done = pip_wheel(source, folder / "wheel", **env)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (folder / "wheel").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    report = subprocess.run(
        [sys.executable, "-c", REPORT],
        env={**os.environ, "PYTHONPATH": str(folder / "site")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.returncode == 0, report.stderr
    assert report.stderr == ""
    said: dict[str, Any] = json.loads(report.stdout)
    assert Path(said["file"]).parent == folder / "site" / "effkernels"
    return done.stdout + done.stderr, said


def test_without_compiler(source: Path, tmp_path: Path) -> None:
    output, said = install_and_import(source, tmp_path, CXX="/nonexistent", EFFKERNELS_CUDA="auto")
    reason = "no C++ compiler: CXX=/nonexistent does not run"
    assert f"effkernels: built no compiled module; no _C: {reason}" in output
    assert said["status"]["cpu"] == said["reasons"]["cpu"] == f"not built: {reason}"
    assert said["status"]["cuda"].startswith("not built: ")
    assert said["info"]["modules"]["_C"] == reason


# Compiles nothing: the module that it links is the one that is installed.
FAKE_COMPILER = """#!{python}
import shutil, subprocess, sys
words = sys.argv[1:]
target = words[words.index("-o") + 1] if "-o" in words else None
if target is None or "-c" not in words and "-shared" not in words:
    sys.exit(subprocess.run([*{compiler}, *words]).returncode)
shutil.copy({module!r}, target) if "-shared" in words else open(target, "w").close()
if "-MF" in words:
    open(words[words.index("-MF") + 1], "w").close()
"""


def test_without_nvcc(source: Path, tmp_path: Path) -> None:
    found = find_compiler(os.environ)
    module = Path(effkernels.__file__).parent / FILE_NAMES[CPU_MODULE]
    if not isinstance(found, Compiler) or not module.exists():
        pytest.skip("no C++ compiler, or no _C is installed")
    compiler = tmp_path / "compiler"
    values = {"python": sys.executable, "compiler": [*found.command], "module": str(module)}
    compiler.write_text(FAKE_COMPILER.format(**values))
    compiler.chmod(0o755)
    output, said = install_and_import(
        source, tmp_path, CXX=str(compiler), CUDA_HOME=str(tmp_path), EFFKERNELS_CUDA="auto"
    )
    assert "effkernels: built _C (" in output
    assert said["status"]["cpu"] is None
    assert said["status"]["cuda"] == said["reasons"]["cuda"]
    # A CPU-only torch is reported first.
    assert "has no bin/nvcc" in said["status"]["cuda"] or "without CUDA" in said["status"]["cuda"]


def test_forced_cuda_fails_without_nvcc(source: Path, tmp_path: Path) -> None:
    done = pip_wheel(source, tmp_path, CUDA_HOME=str(tmp_path), EFFKERNELS_CUDA="1")
    assert done.returncode != 0
    assert "EFFKERNELS_CUDA=1, but _C_cuda cannot be built: " in done.stdout + done.stderr
    assert list(tmp_path.glob("*.whl")) == []


def test_bad_switch_fails(source: Path, tmp_path: Path) -> None:
    done = pip_wheel(source, tmp_path, EFFKERNELS_CUDA="perhaps")
    assert done.returncode != 0
    assert "EFFKERNELS_CUDA='perhaps': accepted are auto" in done.stdout + done.stderr


def test_sdist_holds_what_a_build_needs(source: Path, tmp_path: Path) -> None:
    code = f"import setuptools.build_meta as b; print(b.build_sdist({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {Path(*Path(name).parts[1:]) for name in opened.getnames()}
    for folder in COPIED:
        for path in (source / folder).rglob("*"):
            if path.suffix in {".py", ".cpp", ".cu", ".h", ".cuh", ".typed"}:
                assert path.relative_to(source) in names
    assert {Path("pyproject.toml"), Path("setup.py"), Path("LICENSE")} <= names
