"""The machine: what it is called, and what it can do at most."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import effkernels
from benchmarks import ROOT
from benchmarks.cases import Work
from effkernels import _compiled

_PACKAGES = ("torch", "torchvision", "timm", "onnxruntime", "openvino", "onnx", "numpy")
_COPIES = [2**size for size in range(18, 29, 2)]
_LARGEST_PRODUCT = 2048


@dataclass(frozen=True)
class Limits:
    """Measured in the same run: ``bandwidth`` in bytes/s by the bytes that a copy read and wrote; FLOP/s.

    The largest copy is the memory's speed, the smaller ones that of the caches they fit into.
    """

    bandwidth: tuple[tuple[int, float], ...]
    flops: float

    @property
    def memory_bandwidth(self) -> float:
        """Bytes/s of the largest copy."""
        return self.bandwidth[-1][1]

    def bandwidth_at(self, size: int) -> float:
        """Bytes/s of the smallest copy that moves at least ``size`` bytes; of the largest if none does."""
        fitting = [speed for moved, speed in self.bandwidth if moved >= size]
        return fitting[0] if fitting else self.memory_bandwidth

    def bound(self, work: Work) -> Bound:
        """The least time for this work: all of its bytes, or all of its arithmetic."""
        memory = work.bytes / self.bandwidth_at(work.bytes)
        arithmetic = 2 * work.macs / self.flops
        if memory >= arithmetic:
            return Bound(memory, "memory")
        return Bound(arithmetic, "arithmetic")


@dataclass(frozen=True)
class Bound:
    """The least seconds, and whether "memory" or "arithmetic" sets them."""

    seconds: float
    kind: str


def measure_limits() -> Limits:
    """Copies of 0.25 to 256 MB, and the fastest of some dense products, with torch's threads.

    A copy is timed as the layers are: again and again over the same buffers, so that small ones stay in the
    caches. The arithmetic limit is what a tuned matrix product reaches, not what the data sheet says.
    """
    curve = []
    for size in _COPIES:
        source = torch.rand(size // 8)
        target = torch.empty_like(source)
        seconds = _fastest(lambda t=target, s=source: t.copy_(s), 0.1)  # type: ignore[misc]
        curve.append((size, size / seconds))
    flops = 0.0
    for n in (512, 1024, _LARGEST_PRODUCT):
        a, b = torch.rand(n, n), torch.rand(n, n)
        out = torch.empty(n, n)
        seconds = _fastest(lambda a=a, b=b, o=out: torch.mm(a, b, out=o), 0.3)  # type: ignore[misc]
        flops = max(flops, 2 * n**3 / seconds)
    return Limits(tuple(curve), flops)


def _fastest(run: Callable[[], object], budget: float) -> float:
    run()
    best, end = float("inf"), time.perf_counter() + budget
    while True:
        start = time.perf_counter()
        run()
        now = time.perf_counter()
        best = min(best, now - start)
        if now > end:
            return best


def describe() -> dict[str, Any]:
    """Machine, versions, and which copy of effkernels runs with which backends; as plain data."""
    status = effkernels.backends().values()
    return {
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "mkl": torch.backends.mkl.is_available(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {"effkernels": effkernels.__version__, **_versions()},
        "commit": commit(),
        "effkernels": {
            "package": str(Path(effkernels.__file__).parent.relative_to(ROOT))
            if Path(effkernels.__file__).is_relative_to(ROOT)
            else "installed",
            "backends": {s.name: s.reason or "available" for s in status},
            "ops": {s.name: list(s.ops) for s in status if s.available},
            "instruction_sets": _compiled.build_info().get("instruction_sets"),
            "environment": {k: v for k, v in os.environ.items() if k.startswith("EFFKERNELS_")},
        },
    }


def slug(machine: dict[str, Any]) -> str:
    """The folder of this machine's reports: CPU model and threads."""
    words = re.sub(r"\((?:R|TM|r|tm)\)|CPU|Processor|@.*", " ", machine["cpu"])
    name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    return f"{name}-{machine['threads']}-threads"


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def commit() -> str | None:
    """The commit of the repository, with ``+`` where what is measured differs from it; None without git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", "effkernels", "csrc", "setup.py")
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changed)


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found
