"""Makes a copy of the package with another build, to be tested with EFFKERNELS_TEST_COPY=FOLDER.

build_copy.py FOLDER   copies effkernels/ into FOLDER and builds `_C` there, without CUDA;
                       EFFKERNELS_SANITIZE=address,undefined in the environment instruments it
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "buildtools"))

from effkernels_build.builder import Builder  # noqa: E402


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__)
        return 2
    folder = Path(arguments[0]).resolve()
    package = folder / "effkernels"
    shutil.rmtree(package, ignore_errors=True)
    junk = shutil.ignore_patterns("__pycache__", "*.so", "_build_info.json")
    shutil.copytree(ROOT / "effkernels", package, ignore=junk)
    record = Builder(package, folder / "work", {**os.environ, "EFFKERNELS_CUDA": "0"}).build()
    print(record.summary())
    return 0 if record.modules["_C"] is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
