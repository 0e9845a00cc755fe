"""Decide about the CUDA module: which nvcc, for which architectures, or why there is none.

The decision depends on nvcc, on the CUDA version that torch was built with, and on
`EFFKERNELS_CUDA`, never on the GPU of the machine that builds, which may have none. Nothing here
imports torch or asks the driver.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from effkernels_build.toolchain import BuildError, Missing, Torch, run

USUAL_HOMES = ("/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda")
MINIMUM_NVCC = (12, 0)  # the first with -std=c++20, and with code for sm_90a
MODES = ("auto", "0", "1")

# The names that torch takes in TORCH_CUDA_ARCH_LIST, without GPUs below 8.0, which have no bf16.
_NAMED_ARCHS = {
    "Ampere": "8.0 8.6+PTX",
    "Ada": "8.9+PTX",
    "Hopper": "9.0a",
    "Blackwell+Tegra": "11.0",
    "Blackwell": "10.0 12.0+PTX",
}
_ARCH = re.compile(r"^(\d+)\.(\d)([af]?)(\+PTX)?$")


@dataclass(frozen=True)
class Nvcc:
    """An nvcc that runs, its toolkit's folder and its version, such as (13, 0)."""

    path: Path
    home: Path
    version: tuple[int, int]

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))


def cuda_mode(env: Mapping[str, str]) -> str:
    """`EFFKERNELS_CUDA`: 'auto' (the default), '0' or '1'.

    Raises:
        BuildError: any other value.
    """
    mode = env.get("EFFKERNELS_CUDA", "auto").strip().lower() or "auto"
    if mode not in MODES:
        raise BuildError(
            f"EFFKERNELS_CUDA={env['EFFKERNELS_CUDA']!r}: accepted are auto (build the CUDA module"
            " where it can be built), 0 (do not), 1 (fail where it cannot)"
        )
    return mode


def _nvcc_at(path: Path) -> Nvcc | Missing:
    """Ask the nvcc at `path` for its version and for its toolkit's folder."""
    status, output = run([str(path), "--version"])
    found = re.search(r"release (\d+)\.(\d+)", output)
    if status != 0 or found is None:
        last = output.strip().splitlines()[-1:] or ["no output"]
        return Missing(f"{path} does not run: {last[0]}")
    version = (int(found[1]), int(found[2]))
    # `TOP` is the toolkit's folder, as nvcc prints it: nvcc itself may be a wrapper or a link
    # elsewhere.
    _, dry_run = run([str(path), "--dryrun", "-c", "-x", "cu", "/dev/null", "-o", "/dev/null"])
    top = re.search(r"^#\$ TOP=(.+)$", dry_run, flags=re.MULTILINE)
    home = Path(top[1].strip()) if top else path.resolve().parent.parent
    return Nvcc(path, home.resolve(), version)


def find_nvcc(env: Mapping[str, str], usual_homes: Sequence[str] = USUAL_HOMES) -> Nvcc | Missing:
    """The nvcc of `CUDA_HOME` or `CUDA_PATH`, of the PATH, or of the usual folders.

    Where one of the two variables is set, only the nvcc that it names is considered.
    """
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        home = env.get(variable, "").strip()
        if home:
            path = Path(home) / "bin" / "nvcc"
            return (
                _nvcc_at(path) if path.is_file() else Missing(f"{variable}={home} has no bin/nvcc")
            )
    on_path = shutil.which("nvcc", path=env.get("PATH", ""))
    candidates = [Path(on_path)] if on_path else []
    for usual in map(Path, usual_homes):
        # The newest of several versions, such as /usr/local/cuda-13.0 and cuda-12.8.
        versioned = sorted(usual.parent.glob(usual.name + "-*"), key=_version_key, reverse=True)
        candidates += [home / "bin" / "nvcc" for home in [usual, *versioned]]
    broken: Missing | None = None
    for path in candidates:
        if not path.is_file():
            continue
        found = _nvcc_at(path)
        if isinstance(found, Nvcc):
            return found
        broken = broken or found
    return broken or Missing(
        "no nvcc: not in CUDA_HOME, on the PATH or in " + ", ".join(usual_homes)
    )


def _version_key(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", path.name))


def why_not(torch: Torch | Missing, nvcc: Nvcc | Missing) -> str | None:
    """Why this nvcc cannot build a CUDA module for this torch; None where it can."""
    if isinstance(torch, Missing):
        return torch.reason
    if torch.cuda is None:
        return f"torch {torch.version} is built without CUDA"
    if isinstance(nvcc, Missing):
        return nvcc.reason
    if nvcc.version < MINIMUM_NVCC:
        oldest = ".".join(map(str, MINIMUM_NVCC))
        return f"nvcc {nvcc.version_text} at {nvcc.path} is too old: {oldest} or newer is needed"
    if nvcc.version[0] != int(torch.cuda.split(".")[0]):
        # With two major versions, one process would load two CUDA runtimes.
        return (
            f"nvcc {nvcc.version_text} at {nvcc.path} does not match torch's CUDA {torch.cuda}"
            " (the major versions must)"
        )
    return None


def default_archs(nvcc_version: tuple[int, int], machine: str | None = None) -> list[str]:
    """The architectures to build for where TORCH_CUDA_ARCH_LIST is not set, one as PTX too, for newer ones.

    Device code runs on every GPU of its major version from its own minor version up, so 8.0 serves
    8.9 and 10.0 serves 10.3; but 9.0a, which has wgmma, serves only 9.0, and so would its PTX. 11.0
    exists only in Arm machines.
    """
    if nvcc_version < (12, 8):
        return ["8.0+PTX", "9.0a"]
    archs = ["8.0", "9.0a", "10.0"]
    if nvcc_version >= (13, 0) and (machine or platform.machine()) == "aarch64":
        archs.append("11.0")
    return [*archs, "12.0+PTX"]


def arch_list(env: Mapping[str, str], nvcc_version: tuple[int, int]) -> list[str]:
    """`TORCH_CUDA_ARCH_LIST` ('8.0;9.0a 12.0+PTX', 'Hopper'), or `default_archs` if it is not set.

    Raises:
        BuildError: an entry is not an architecture, or is below 8.0.
    """
    text = env.get("TORCH_CUDA_ARCH_LIST", "").strip()
    if not text:
        return default_archs(nvcc_version)
    for name, archs in _NAMED_ARCHS.items():
        text = re.sub(rf"(?<![\w+]){re.escape(name)}(?![\w+])", archs, text)
    entries = list(dict.fromkeys(re.split(r"[;,\s]+", text.strip("; ,"))))
    for entry in entries:
        found = _ARCH.match(entry)
        if found is None:
            raise BuildError(
                f"TORCH_CUDA_ARCH_LIST: {entry!r} is not an architecture; accepted are numbers such as"
                f" 8.0, 9.0a or 12.0+PTX and the names {', '.join(_NAMED_ARCHS)}"
            )
        if int(found[1]) < 8:
            raise BuildError(
                f"TORCH_CUDA_ARCH_LIST: {entry} is too old: the kernels need 8.0 or newer (bf16)"
            )
    return entries


def gencode_flags(archs: Sequence[str]) -> list[str]:
    """nvcc's -gencode flags for architectures such as '9.0a' or '12.0+PTX'."""
    flags = []
    for arch in archs:
        number = arch.removesuffix("+PTX").replace(".", "")
        targets = (
            f"sm_{number}" if number == arch.replace(".", "") else f"[sm_{number},compute_{number}]"
        )
        flags.append(f"-gencode=arch=compute_{number},code={targets}")
    return flags


# What is compiled where no listed architecture has the feature: there the kernels' bodies are empty, and never run.
_NONE_OF_THEM = ["8.0"]


def tensor_memory_archs(archs: Sequence[str]) -> list[str]:
    """Those of `archs` with TMA and mbarriers, 9.0 and newer; 8.0, with empty kernels, if there are none."""
    return [
        arch for arch in archs if float(arch.removesuffix("+PTX").rstrip("af")) >= 9
    ] or _NONE_OF_THEM


def large_memory_archs(archs: Sequence[str]) -> list[str]:
    """Those of :func:`tensor_memory_archs` with 227 KiB of shared memory a block, which 12.0 and newer lack."""
    return [
        arch
        for arch in tensor_memory_archs(archs)
        if float(arch.removesuffix("+PTX").rstrip("af")) < 12
    ] or _NONE_OF_THEM


def warpgroup_archs(archs: Sequence[str]) -> list[str]:
    """Those of `archs` with wgmma, 9.0a alone, and never as PTX; 8.0, with empty kernels, if it is not there."""
    return ["9.0a"] if {"9.0a", "9.0a+PTX"} & set(archs) else _NONE_OF_THEM


def device_archs(archs: Sequence[str]) -> list[str]:
    """The names of these architectures in device code: ['sm_80', 'sm_90a', ...]."""
    return ["sm_" + arch.removesuffix("+PTX").replace(".", "") for arch in archs]
