"""What computes the ops: each backend registers its kernels under the contracts of `effkernels.ops`.

``cpu`` and ``cuda`` call the compiled modules; ``triton`` holds its kernels here. Plain PyTorch
(`effkernels.reference`) is the fallback of all of them and registers nothing. Only
`effkernels/__init__.py` imports this package.
"""

from effkernels._backends import cpu, cuda, triton


def register() -> None:
    """Let every backend that can run here be chosen. Called once, when `effkernels` is imported."""
    cpu.register()
    cuda.register()
    triton.register()
