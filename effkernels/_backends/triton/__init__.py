"""The triton backend: its kernels, registered under the contracts of `effkernels.ops`.

Nothing here imports triton: the file of an op does, when the op first runs.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from typing import Any

import torch

from effkernels import dispatch
from effkernels._backends.cpu import _rejects_dtype, _rejects_gate, uint8_too
from effkernels._backends.cuda import few_hidden, few_terms, new_enough, register_network
from effkernels.ops._define import define_private, implement_private

# Hidden channels are held in the registers of one program.
_MOST_HIDDEN = 1024

# The file of each op in this folder, and what it rejects.
_OPS: dict[str, tuple[str, Callable[..., str | None]]] = {
    "conv_bn_act": ("conv_bn_act", few_terms(uint8_too(_rejects_dtype))),
    "depthwise_conv_bn_act": ("depthwise_conv_bn_act", _rejects_dtype),
    "depthwise_conv_bn_act_pool": ("depthwise_conv_bn_act", _rejects_dtype),
    "pointwise_conv_bn_act": ("pointwise_conv_bn_act", _rejects_dtype),
    "pointwise_conv_bn_act_pool": ("pointwise_conv_bn_act", _rejects_dtype),
    "pointwise_conv_bn_act_squeeze": ("pointwise_conv_bn_act", _rejects_dtype),
    "squeeze_excite_gate": ("squeeze_excite", few_hidden(_MOST_HIDDEN, _rejects_gate)),
    "squeeze_excite": ("squeeze_excite", few_hidden(_MOST_HIDDEN, _rejects_dtype)),
}


def interpreted() -> bool:
    """Whether Triton runs its kernels in its interpreter here: as Triton itself reads ``TRITON_INTERPRET``."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def _cannot_start() -> str | None:
    """Why Triton cannot build the small module that starts its kernels, which it compiles when one first runs."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton needs a C compiler when it first runs: gcc, clang, or what CC names"
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        return "Triton needs Python's headers (Python.h) when it first runs"
    return None


def _imported_when_called(file: str, name: str) -> Callable[..., Any]:
    @functools.cache
    def function() -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(
            importlib.import_module(f"effkernels._backends.triton.{file}"), name
        )
        return found

    return lambda *arguments: function()(*arguments)


def register() -> None:
    """Make the backend available where triton is installed and there is a GPU, or its interpreter is asked for.

    The interpreter also computes tensors on the CPU, slowly: it is there for tests and debuggers, and runs only
    where the backend is named.
    """
    if importlib.util.find_spec("triton") is None:
        dispatch.mark_unavailable("triton", "triton is not installed")
        return
    keys = ("CUDA", "CPU") if interpreted() else ("CUDA",)
    for name, (file, rejects) in _OPS.items():
        private = define_private(name, "triton")
        for key in keys:
            implement_private(name, "triton", key, _imported_when_called(file, name))
        dispatch.register_kernel("triton", name, private, new_enough(rejects))
    register_network("triton")
    if interpreted():
        dispatch.restrict_to_requests("triton", ("cuda", "cpu"))
        dispatch.mark_available("triton")
    elif torch.cuda.device_count() == 0:
        dispatch.mark_unavailable("triton", "there is no CUDA device")
    elif (reason := _cannot_start()) is not None:
        dispatch.mark_unavailable("triton", reason)
    else:
        dispatch.mark_available("triton")
