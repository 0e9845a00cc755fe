"""Python in a process of its own, with the copy of effkernels that is under test."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the interpreter of these tests, with more environment variables.

    In an empty folder: from the root of a checkout, ``python -c`` imports the sources, in which nothing
    is compiled.
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
