"""The backends of the ops: each registers its kernels for the schemas of `effkernels.ops`.

``cpu`` and ``cuda`` call the compiled modules; the kernels of ``triton`` are in its folder. Plain PyTorch
(`effkernels.reference`) is the fallback of all of them and registers nothing. Only
`effkernels/__init__.py` imports this package.
"""

import torch

from effkernels import dispatch
from effkernels._backends import compiled, cpu, cuda, triton


def register() -> None:
    """Make every backend that can run here available. Called once, when `effkernels` is imported."""
    cpu.register()
    cuda.register()
    triton.register()
    _warn_of_what_is_missing()


def _warn_of_what_is_missing() -> None:
    """Warn if there is a GPU but a backend for it is missing, so that users need not find out by timing."""
    if dispatch.requested_backend()[0] == "torch":
        return
    if not compiled.built():
        dispatch.warn_once(f"effkernels: {compiled.compiled_status()['cpu']}")
    elif torch.cuda.device_count() > 0:  # asks NVML, so forking still works
        for name, status in dispatch.backends().items():
            if status.reason is not None and name in ("cuda", "triton"):
                dispatch.warn_once(
                    f"effkernels: a GPU is here, but the {name} backend is not available: {status.reason}"
                )
