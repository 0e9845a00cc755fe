"""Runs Python in a separate process, with the copy of effkernels that is under test."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the interpreter of these tests, with additional environment variables.

    It runs in an empty folder: in the root of a checkout, ``python -c`` would import the sources,
    without compiled modules.
    """
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
