"""The triton backend: its kernels, registered for the schemas of `effkernels.ops`.

Nothing here imports triton: the file of an op does that, when the op first runs.
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
from effkernels._backends import limits
from effkernels._backends.limits import other_dtypes, refusal
from effkernels.ops._define import define_private, implement_private
from effkernels.ops._steps import NETWORK, run_by_steps
from effkernels.ops._window import WindowArguments
from effkernels.ops.conv_bn_act import ConvArguments
from effkernels.ops.pointwise_conv_bn_act import PointwiseArguments, PointwisePoolArguments
from effkernels.ops.squeeze_excite import SqueezeExciteArguments
from effkernels.ops.squeeze_excite_gate import GateArguments

_terms = limits.too_many_terms(256)  # as in the cuda backend: the kernel is meant for stems
_hidden = limits.too_many_hidden(1024)  # held in the registers of one program

_window = refusal(WindowArguments, other_dtypes)
_pooled = refusal(PointwisePoolArguments, other_dtypes)
# The file of each op in this folder, and the arguments that it refuses.
_OPS: dict[str, tuple[str, limits.Refusal]] = {
    "conv_bn_act": (
        "conv_bn_act",
        refusal(ConvArguments, _terms, limits.other_dtypes_but_uint8_images),
    ),
    "depthwise_conv_bn_act": ("depthwise_conv_bn_act", _window),
    "depthwise_conv_bn_act_pool": ("depthwise_conv_bn_act", _window),
    "pointwise_conv_bn_act": ("pointwise_conv_bn_act", refusal(PointwiseArguments, other_dtypes)),
    "pointwise_conv_bn_act_pool": ("pointwise_conv_bn_act", _pooled),
    "pointwise_conv_bn_act_squeeze": ("pointwise_conv_bn_act", _pooled),
    "squeeze_excite_gate": (
        "squeeze_excite_gate",
        refusal(GateArguments, _hidden, limits.pooled_not_float32, other_dtypes),
    ),
    "squeeze_excite": (
        "squeeze_excite",
        refusal(SqueezeExciteArguments, _hidden, other_dtypes),
    ),
}


def interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter, from ``TRITON_INTERPRET`` as Triton itself reads it."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def _cannot_start() -> str | None:
    """Why Triton cannot compile the small C module that launches a kernel, which it does at the first launch."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton needs a C compiler at the first launch: gcc, clang, or the one that CC names"
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        return "Triton needs Python's headers (Python.h) at the first launch"
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
    """Make the backend available if triton is installed and there is a GPU, or its interpreter is enabled.

    The interpreter also computes tensors on the CPU, slowly. It is meant for tests and debugging, and runs only
    where the backend is named.
    """
    if importlib.util.find_spec("triton") is None:
        dispatch.mark_unavailable("triton", "triton is not installed")
        return
    keys = ("CUDA", "CPU") if interpreted() else ("CUDA",)
    for name, (file, refuses) in _OPS.items():
        private = define_private(name, "triton")
        for key in keys:
            implement_private(name, "triton", key, _imported_when_called(file, name))
        dispatch.register_kernel("triton", name, private, limits.on_gpu(refuses))
    dispatch.register_kernel(
        "triton", NETWORK, run_by_steps, limits.on_gpu(limits.network), by_parts=True
    )
    if interpreted():
        dispatch.restrict_to_requests("triton", ("cuda", "cpu"))
        dispatch.mark_available("triton")
    elif torch.cuda.device_count() == 0:
        dispatch.mark_unavailable("triton", "there is no CUDA device")
    elif (reason := _cannot_start()) is not None:
        dispatch.mark_unavailable("triton", reason)
    else:
        dispatch.mark_available("triton")
