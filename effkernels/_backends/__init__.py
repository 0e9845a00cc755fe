"""What computes the ops: each backend registers its kernels under the contracts of `effkernels.ops`.

``cpu`` and ``cuda`` call the compiled modules; ``triton`` holds its kernels here. Plain PyTorch
(`effkernels.reference`) is the fallback of all of them and registers nothing. Only
`effkernels/__init__.py` imports this package.
"""

import torch

from effkernels import dispatch
from effkernels._backends import compiled, cpu, cuda, triton


def register() -> None:
    """Let every backend that can run here be chosen. Called once, when `effkernels` is imported."""
    cpu.register()
    cuda.register()
    triton.register()
    _warn_of_what_is_missing()


def _warn_of_what_is_missing() -> None:
    """Who installed the package for its kernels should not find out by the clock that they are not there."""
    if dispatch.asked_for()[0] == "torch":
        return
    if not compiled.built():
        dispatch.warn_once(f"effkernels: {compiled.compiled_status()['cpu']}")
    elif (
        torch.cuda.device_count() > 0
    ):  # asks the driver's library for management, and spoils no fork
        for name, status in dispatch.backends().items():
            if status.reason is not None and name in ("cuda", "triton"):
                dispatch.warn_once(
                    f"effkernels: a GPU is here, but the {name} backend is not available: {status.reason}"
                )
