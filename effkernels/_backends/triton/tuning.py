"""``EFFKERNELS_AUTOTUNE=1``: configurations are measured at the first call with a shape, and kept on disk.

There is one file for each GPU, driver and version of torch and triton, in ``EFFKERNELS_CACHE``, or else in
``effkernels`` below ``XDG_CACHE_HOME`` or ``~/.cache``. Without the variable nothing is measured and no file is
read.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import triton
from torch import Tensor
from triton.runtime.errors import TritonError

logger = logging.getLogger("effkernels")

Config = TypeVar("Config", bound=tuple[Any, ...])
Measure = Callable[[Callable[[], object]], float]
"""Times a function, in any unit."""


@functools.cache
def autotune_requested() -> bool:
    """Whether ``EFFKERNELS_AUTOTUNE`` is on; read when an op first runs."""
    return os.environ.get("EFFKERNELS_AUTOTUNE", "").strip().lower() in ("1", "true", "yes", "on")


class Tuner:
    """Chooses configurations by measuring, and keeps the choices in one file.

    A file that cannot be read counts as empty; one that cannot be written is reported once. Configurations that
    do not compile or do not fit on the GPU are skipped.
    """

    def __init__(self, path: Path, measure: Measure) -> None:
        self.path = path
        self._measure = measure
        # Measuring an op may call other ops that are tuned themselves.
        self._lock = threading.RLock()
        self._picked = self._read()
        self._writable = True

    def pick(
        self,
        key: str,
        chosen: Config,
        candidates: Sequence[Config],
        start: Callable[[Config], object],
        *,
        measure: bool = True,
    ) -> Config:
        """The fastest of ``candidates``, or ``chosen`` if none of them runs.

        Args:
            key: the op and everything that its time depends on.
            chosen: the configuration that is used without tuning.
            candidates: the configurations to measure; the first of equally fast ones wins.
            start: runs the op with a configuration; it may be called many times.
            measure: if False, only an earlier measurement is used, else ``chosen``.
        """
        with self._lock:
            found = self._picked.get(key)
            # A choice from an older list of candidates may no longer exist.
            known = next((c for c in candidates if list(c) == found), None)
            if known is not None or not measure:
                return known or chosen
            best, shortest = chosen, float("inf")
            for candidate in candidates:
                seconds = self._seconds(functools.partial(start, candidate))
                if seconds < shortest:
                    best, shortest = candidate, seconds
            self._picked[key] = list(best)
            self._write()
            return best

    def _seconds(self, run: Callable[[], object]) -> float:
        try:
            run()
            return self._measure(run)
        except (TritonError, triton.CompilationError) as error:
            logger.debug("a configuration is skipped: %s", error)
            return float("inf")

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self) -> None:
        # Another process may have written choices for other shapes in the meantime.
        merged = {**self._read(), **self._picked}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=self.path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "w") as file:
                    json.dump(merged, file, indent=1, sort_keys=True)
                os.replace(part, self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(part)
                raise
        except OSError as error:
            if self._writable:
                logger.warning("EFFKERNELS_AUTOTUNE: %s cannot be written: %s", self.path, error)
            self._writable = False


def cache_file(described: str) -> Path:
    """The file with the choices for one GPU and its software; ``described`` names all of these."""
    folder = os.environ.get("EFFKERNELS_CACHE")
    if not folder:
        caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(caches, "effkernels")
    name = re.sub(r"[^a-z0-9]+", "-", described.partition(",")[0].lower()).strip("-")
    return Path(folder) / f"{name}-{hashlib.sha256(described.encode()).hexdigest()[:12]}.json"


@functools.cache
def tuner(device: int) -> Tuner:
    """The tuner of a GPU."""
    properties = torch.cuda.get_device_properties(device)
    described = (
        f"{properties.name}, {properties.major}.{properties.minor}, "
        f"driver {_driver()}, torch {torch.__version__}, "
        f"triton {triton.__version__}"
    )
    return Tuner(cache_file(described), _median_milliseconds)


def _driver() -> str:
    """The driver's version, from its kernel module; empty if that does not say."""
    try:
        return Path("/proc/driver/nvidia/version").read_text().partition("\n")[0]
    except OSError:
        return ""


def _median_milliseconds(run: Callable[[], object]) -> float:
    milliseconds: float = triton.testing.do_bench(run, warmup=5, rep=20, return_mode="median")
    return milliseconds


def tuning(x: Tensor) -> bool:
    """Whether an op on ``x`` should use :func:`tuned`."""
    return autotune_requested() and x.is_cuda and x.numel() > 0


def tuned(
    x: Tensor,
    key: tuple[Any, ...],
    chosen: Config,
    candidates: Sequence[Config],
    start: Callable[[Config], object],
) -> Config:
    """What :meth:`Tuner.pick` chooses for an op on ``x``. Nothing is measured while a graph is captured."""
    described = " ".join(map(str, (*key, x.dtype, *x.shape)))
    measure = not torch.cuda.is_current_stream_capturing()
    with torch.cuda.device(x.device):
        return tuner(x.device.index).pick(described, chosen, candidates, start, measure=measure)
