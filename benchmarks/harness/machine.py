"""The machine: its name, and the highest speeds it reaches."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import effkernels
from benchmarks import ROOT
from benchmarks.harness.device import CPU, Device
from effkernels._backends import compiled
from specs.work import Work

_PACKAGES = ("torch", "torchvision", "timm", "onnxruntime", "openvino", "onnx", "numpy")
# Variables that decide which code runs; other variables with EFFKERNELS_ are about builds, tests and folders.
_SWITCHES = ("EFFKERNELS_BACKEND", "EFFKERNELS_CPU_ISA", "EFFKERNELS_AUTOTUNE")
_COPIES = [2**size for size in range(18, 29, 2)]
_GPU_COPY = 2**31
_PACE_SIZE, _PACE_PRODUCTS = 384, 3


@dataclass(frozen=True)
class Limits:
    """Measured in the same run: ``bandwidth`` in bytes/s, counting the bytes that a copy reads and writes; FLOP/s.

    The largest copy gives the speed of the memory, smaller ones that of the caches that hold them.
    """

    bandwidth: tuple[tuple[int, float], ...]
    flops: float

    @property
    def memory_bandwidth(self) -> float:
        """Bytes/s of the largest copy."""
        return self.bandwidth[-1][1]

    def best(self, other: Limits) -> Limits:
        """The faster of two measurements of each quantity, as something may have disturbed one of them."""
        pairs = zip(self.bandwidth, other.bandwidth, strict=True)
        curve = tuple((size, max(mine, theirs)) for (size, mine), (_, theirs) in pairs)
        return Limits(curve, max(self.flops, other.flops))

    def bandwidth_at(self, size: int) -> float:
        """Bytes/s of the smallest copy that moves at least ``size`` bytes, or of the largest copy."""
        fitting = [speed for moved, speed in self.bandwidth if moved >= size]
        return fitting[0] if fitting else self.memory_bandwidth

    def bound(self, work: Work) -> Bound:
        """The minimum time for this work: that of all its bytes, or of all its arithmetic."""
        memory = work.bytes / self.bandwidth_at(work.bytes)
        arithmetic = 2 * work.macs / self.flops
        if memory >= arithmetic:
            return Bound(memory, "memory")
        return Bound(arithmetic, "arithmetic")


@dataclass(frozen=True)
class Bound:
    """The minimum seconds, and whether "memory" or "arithmetic" determines them."""

    seconds: float
    kind: str


def measure_limits(device: Device = CPU) -> Limits:
    """Measure copies, and the fastest of some dense products and convolutions, with torch's threads or on a GPU.

    On a CPU, copies of 0.25 to 256 MB are timed as the layers are: repeatedly over the same buffers, so that small
    ones stay in the caches. On a GPU, where layers read from memory, one copy of 2 GB is timed. The arithmetic
    limit is what the best tuned library reaches, not what the data sheet promises. Processors without instructions for
    16 bits convert to float32, so its products count there too.
    """
    device.set_precision()
    curve = []
    for size in _COPIES if device.kind == "cpu" else [_GPU_COPY]:
        source = torch.rand(size // 8, device=device.kind)
        target = torch.empty_like(source)
        seconds = _fastest(functools.partial(target.copy_, source), 0.1)
        curve.append((size, size / seconds))
    computed = (device, CPU) if device.kind == "cpu" else (device,)
    products = (each for one in dict.fromkeys(computed) for each in _dense_products(one))
    flops = max(macs / _fastest(run, 0.3) for run, macs in products) * 2
    return Limits(tuple(curve), flops)


def _dense_products(device: Device) -> Iterator[tuple[Callable[[], object], int]]:
    """Matrix products by BLAS and convolutions by oneDNN, and their multiply-accumulates.

    Either may know this processor better: MKL uses AVX2 code on some processors with AVX-512.
    """
    for n in (512, 1024, 2048) if device.kind == "cpu" else (4096, 8192):
        a, b = (device.put(torch.rand(n, n)) for _ in range(2))
        yield functools.partial(torch.mm, a, b, out=torch.empty_like(a)), n**3
    for channels, side, kernel in ((512, 32, 1), (256, 32, 3)) if device.kind == "cpu" else ():
        x = device.put(torch.rand(2, channels, side, side))
        x = x.contiguous(memory_format=torch.channels_last)
        weight = device.put(torch.rand(channels, channels, kernel, kernel))
        weight = weight.contiguous(memory_format=torch.channels_last)
        macs = x.numel() * channels * kernel**2
        yield functools.partial(F.conv2d, x, weight, padding=kernel // 2), macs


def _fastest(run: Callable[[], object], budget: float) -> float:
    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    run()
    best, end = float("inf"), time.perf_counter() + budget
    while True:
        wait()
        start = time.perf_counter()
        run()
        wait()
        now = time.perf_counter()
        best = min(best, now - start)
        if now > end:
            return best


@functools.lru_cache(1)
def _paced() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    a, b = torch.rand(_PACE_SIZE, _PACE_SIZE), torch.rand(_PACE_SIZE, _PACE_SIZE)
    return a, b, torch.empty_like(a)


def pace() -> float:
    """Seconds of some fixed products of two matrices, with torch's threads: they tell how fast the CPU is now."""
    a, b, out = _paced()
    torch.mm(a, b, out=out)  # wakes the threads
    start = time.perf_counter()
    for _ in range(_PACE_PRODUCTS):
        torch.mm(a, b, out=out)
    return time.perf_counter() - start


def describe() -> dict[str, Any]:
    """Machine, versions, and which copy of effkernels runs with which backends, as plain data."""
    status = effkernels.backends().values()
    return {
        "cpu": cpu_model(),
        "gpu": gpu(),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "mkl": torch._C.has_mkl,
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
            "instruction_sets": compiled.build_info().get("instruction_sets"),
            "environment": {name: os.environ[name] for name in _SWITCHES if name in os.environ},
        },
    }


def gpu() -> dict[str, Any] | None:
    """The first GPU, if there is one."""
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_bytes": found.total_memory,
        "l2_bytes": found.L2_cache_size,
        "cuda": torch.version.cuda,
        **_driver_says(),
    }


def _driver_says() -> dict[str, str]:
    """The driver and the maximum clocks, if nvidia-smi is installed."""
    fields = ("driver_version", "clocks.max.sm", "clocks.max.memory", "power.limit")
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "--id=0"]
    try:
        said = subprocess.run(query, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(zip(fields, said.strip().split(", "), strict=False))


def slug(machine: dict[str, Any], device: Device = CPU) -> str:
    """The folder name for reports of this machine: CPU model and threads, or GPU and type."""
    if device.kind == "cuda":
        return re.sub(r"[^a-z0-9]+", "-", f"{machine['gpu']['name']}-{device.title}".lower())
    words = re.sub(r"\((?:R|TM|r|tm)\)|CPU|Processor|@.*", " ", machine["cpu"])
    name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    return f"{name}-{machine['threads']}-threads"


def busy_seconds() -> float:
    """Processor time that all processes of the machine have used, over all cores; 0 if the system does not say."""
    try:
        # user, nice, system, idle, iowait, irq, softirq, steal; guest time is included in user time (proc_stat(5))
        fields = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError):
        return 0.0
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def cpu_model() -> str:
    """The processor's name as the system reports it; one without a number, as virtual machines have, with the
    numbers that tell its generation."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    return named_processor(text) or platform.machine()


def named_processor(cpuinfo: str) -> str | None:
    """The name of the first processor in the text of /proc/cpuinfo: ``"AMD EPYC (family 25, model 1)"``."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        field, colon, value = line.partition(":")
        if colon:
            fields.setdefault(field.strip(), value.strip())
    name = fields.get("model name") or fields.get("Model")
    if name is None or any(c.isdigit() for c in name) or "cpu family" not in fields:
        return name
    return f"{name} (family {fields['cpu family']}, model {fields['model']})"


def commit() -> str | None:
    """The commit of the repository, with ``+`` if the measured code differs from it; None without git."""
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
    return {package: _version(package) for package in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
