"""Use a CUDA module that was built over another torch: all releases since 2.11 load the same one.

reuse_cuda.py bindings       check that its bindings compile with the installed torch; nothing else includes its headers
reuse_cuda.py adopt FOLDER   copy FOLDER's module and its record into the installed package, which has none
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
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
from effkernels_build.ninja_build import CompileError, build  # noqa: E402
from effkernels_build.record import FILE_NAME  # noqa: E402
from effkernels_build.toolchain import (  # noqa: E402
    find_compiler,
    find_ninja,
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
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "network_layout.h").write_text(network_layout_header(ROOT))
        python = require(find_python_headers())
        module = cuda_module(ROOT, compiler, nvcc, torch, python, folder, ["9.0a"])
        how = module.languages["binding"]
        bindings = replace(
            module,
            sources=tuple(one for one in module.sources if one[1] == "binding"),
            languages={"binding": replace(how, flags=(*how.flags, "-O0", "-Werror"))},
            link=(*compiler.command, "-shared"),
            link_flags=(),
        )
        try:
            build(
                bindings,
                ROOT,
                folder,
                folder / "bindings.so",
                require(find_ninja(os.environ)),
                None,
            )
        except CompileError as error:
            print(error.log)
            return False
    print(f"{len(bindings.sources)} bindings with torch {torch.version}")
    return bool(bindings.sources)


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
