"""Use a CUDA module that was built over another torch: all releases since 2.11 load the same one.

reuse_cuda.py bindings       check that its bindings compile with the installed torch; nothing else includes its headers
reuse_cuda.py adopt FOLDER   copy FOLDER's module and its record into the installed package, which has none
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "buildtools"))

from effkernels_build.cuda import find_nvcc  # noqa: E402
from effkernels_build.modules import (  # noqa: E402
    CUDA_MODULE,
    FILE_NAMES,
    cuda_module,
    network_layout_header,
)
from effkernels_build.record import FILE_NAME  # noqa: E402
from effkernels_build.toolchain import (  # noqa: E402
    find_compiler,
    find_python_headers,
    find_torch,
    require,
)


def bindings_compile() -> bool:
    compiler, nvcc, torch = (
        require(find_compiler(os.environ)),
        require(find_nvcc(os.environ)),
        require(find_torch()),
    )
    with tempfile.TemporaryDirectory() as generated:
        (Path(generated) / "network_layout.h").write_text(network_layout_header(ROOT))
        python = require(find_python_headers())
        module = cuda_module(ROOT, compiler, nvcc, torch, python, Path(generated), ["9.0a"])
        how = module.languages["cpp"]
        command = [*how.command, *how.flags, "-Werror", "-fsyntax-only"]
        sources = [str(source) for source, language in module.sources if language == "cpp"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            runs = pool.map(lambda source: subprocess.run([*command, source], check=False), sources)
            failed = [s for s, done in zip(sources, runs, strict=True) if done.returncode != 0]
    print(f"{len(sources)} bindings with torch {torch.version}; failed: {failed}")
    return bool(sources) and not failed


def adopt(folder: Path) -> None:
    package = importlib.util.find_spec("effkernels")
    assert package is not None
    assert package.origin is not None
    installed = Path(package.origin).parent
    record = json.loads((installed / FILE_NAME).read_text())
    other = json.loads((folder / FILE_NAME).read_text())
    assert record["modules"][CUDA_MODULE] is not None, "the installed package has a module"
    shutil.copy(folder / FILE_NAMES[CUDA_MODULE], installed)
    record["modules"][CUDA_MODULE] = None
    record |= {name: other[name] for name in ("cuda", "cuda_archs")}
    (installed / FILE_NAME).write_text(json.dumps(record, indent=2) + "\n")
    print(f"{installed} has the module built with torch {other['torch']}")


def main(arguments: list[str]) -> int:
    match arguments:
        case ["bindings"]:
            return 0 if bindings_compile() else 1
        case ["adopt", folder]:
            adopt(Path(folder))
            return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
