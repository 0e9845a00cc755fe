"""Peak memory of one forward pass, in a fresh process.

Measured is how far the process's peak resident size (VmHWM) rises above its resident size just before the pass.
By then the weights and the input are loaded, a forward pass of a 32 x 32 image has started threads and loaded
kernels, and freed memory has been returned to the system. So the rise is what the pass itself needs: feature
maps and workspaces, without weights, input and libraries. On a GPU it is the rise of the memory that PyTorch's
allocator has handed out.
"""

from __future__ import annotations

import ctypes
import gc
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases.networks import NetworkCase, network
from benchmarks.harness.problem import SEED

_STATUS = Path("/proc/self/status")


def measure(kind: str, case: NetworkCase, folder: str) -> dict[str, Any]:
    """``peak_bytes`` of one pass of "effkernels" or "eager-channels_last", and its ``seconds``."""
    from benchmarks.contestants.eager import stock_network

    model = network(Path(folder), case) if kind == "effkernels" else None
    run: Any = model if model is not None else stock_network(case, Path(folder))[0]
    if model is None:
        run = run.to(memory_format=torch.channels_last)
    run = case.device.put(run)
    torch.manual_seed(SEED + 1)
    size = (case.batch, 3, case.resolution, case.resolution)
    images = case.device.put(torch.randn(size)).contiguous(memory_format=torch.channels_last)
    rest, peak = _METERS[case.device.kind]
    with torch.inference_mode():
        run(images[:, :, :32, :32].contiguous(memory_format=torch.channels_last))
        before = rest()
        start = time.perf_counter()
        run(images).cpu()
        seconds = time.perf_counter() - start
        return {"peak_bytes": peak() - before, "seconds": seconds}


def _rest_gpu() -> int:
    """Return freed memory to the driver and reset the peak; returns the allocated bytes."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _rest() -> int:
    """Return freed memory to the system and reset the peak; returns the resident bytes."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    # 5: reset the peak resident size (Linux, Documentation/filesystems/proc.rst)
    Path("/proc/self/clear_refs").write_text("5")
    return _kilobytes("VmRSS") * 1024


def _kilobytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert found is not None, f"the system does not report {field}"
    return int(found.group(1))


# For each kind of device: the function that resets the peak, and the one that reads it, in bytes.
_METERS: dict[str, tuple[Callable[[], int], Callable[[], int]]] = {
    "cpu": (_rest, lambda: _kilobytes("VmHWM") * 1024),
    "cuda": (_rest_gpu, torch.cuda.max_memory_allocated),
}
