"""Load the optional compiled modules `effkernels._C` and `effkernels._C_cuda`.

Importing this file prints nothing and never fails: if a module is missing or does not load with
this torch, `compiled_status` gives the reason, and the logger "effkernels" logs it at debug level.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from types import MappingProxyType, ModuleType

import torch

_logger = logging.getLogger("effkernels")

_NAMES = {"cpu": "_C", "cuda": "_C_cuda"}
_PACKAGE = Path(__file__).resolve().parents[1]
_RECORD = _PACKAGE / "_build_info.json"


@functools.cache
def _record() -> Mapping[str, object]:
    """The record that the build wrote; empty in a source tree in which nothing was built."""
    try:
        record: Mapping[str, object] = json.loads(_RECORD.read_text())
    except (OSError, ValueError):
        return {}
    return record


def built() -> bool:
    """Whether a build was recorded in the package's folder. Not so in a source tree that is imported directly."""
    return bool(_record())


def _why_absent(name: str) -> str:
    modules = _record().get("modules")
    if not isinstance(modules, dict):
        return (
            f"{_PACKAGE} is a source tree without a build: every op runs in plain PyTorch; install it"
            " (pip install .) and start outside of its repository, or install it editable (pip install -e .)"
        )
    reason = modules.get(name)
    return f"not built: {reason}" if reason else f"built, but effkernels.{name} is gone: reinstall"


def _load(name: str) -> tuple[ModuleType | None, str | None]:
    full_name = f"effkernels.{name}"
    # Only from the package's own folder: an editable install could find another copy's module.
    spec = PathFinder.find_spec(full_name, [str(_PACKAGE)])
    try:
        if spec is None or spec.loader is None:
            reason = _why_absent(name)
        else:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            sys.modules[full_name] = module
            return module, None
    except (ImportError, OSError, RuntimeError) as error:
        # OSError, ImportError: this torch lacks a symbol or library. RuntimeError: an operator did not register.
        reason = f"does not load with torch {torch.__version__}: {error}"
    _logger.debug("%s: %s", full_name, reason)
    return None, reason


_LOADED = {backend: _load(name) for backend, name in _NAMES.items()}


def compiled_status() -> Mapping[str, str | None]:
    """For "cpu" (`effkernels._C`) and "cuda" (`_C_cuda`): None if it is loaded, else why not."""
    return MappingProxyType({backend: reason for backend, (_, reason) in _LOADED.items()})


def cpu_module() -> ModuleType | None:
    """`effkernels._C`, or None if it is not loaded."""
    return _LOADED["cpu"][0]


def cuda_module() -> ModuleType | None:
    """`effkernels._C_cuda`, or None if it is not loaded."""
    return _LOADED["cuda"][0]


def build_info() -> dict[str, object]:
    """How this copy of the package was built.

    Returns:
        `modules` (name to None, or to the reason why it was not built), the versions of `torch`,
        `torch_cuda` and `python` at build time, `platform`, `compiler`, `cxx_standard`, `cuda`
        (nvcc's version, or None) and `cuda_archs` ("9.0", "12.0+PTX"); with `effkernels._C` also
        `compiled_with`, `cplusplus` and `instruction_sets` ("compiled" into every file, "detected"
        on this processor). Empty in a source tree in which nothing was built.
    """
    module = cpu_module()
    info: dict[str, object] = dict(_record()) if module is None else module.build_info()
    return info


def device_code_arch(device: torch.device | int | str = "cuda") -> int:
    """Run device code of `_C_cuda` and return the `__CUDA_ARCH__` for which it was compiled, such as 900.

    Raises:
        RuntimeError: the module is not loaded, or has no code for this GPU.
    """
    reason = compiled_status()["cuda"]
    if reason is not None:
        raise RuntimeError(f"effkernels._C_cuda: {reason}")
    probe = torch.empty(0, device=device)
    return int(torch.ops.effkernels_cuda.device_arch(probe).item())
