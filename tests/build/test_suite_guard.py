"""The guard that stops the suite if it would test another copy of the package than the installed
one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from source_tree import ROOT

# Like the `pytest` command: without the current folder on sys.path, which has the package's source.
PYTEST = "import sys; sys.path = [p for p in sys.path if p]; import pytest; sys.exit(pytest.main())"


@pytest.mark.slow
def test_another_copy_is_not_tested(tmp_path: Path) -> None:
    environment = {**os.environ, "EFFKERNELS_TEST_COPY": str(tmp_path)}
    command = [sys.executable, "-c", PYTEST, "-p", "no:cacheprovider", "tests/test_scaling.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 4, said
    assert f"but EFFKERNELS_TEST_COPY={tmp_path}" in said
    assert " passed" not in said
