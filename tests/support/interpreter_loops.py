"""Makes loops work in the interpreter of Triton 3.6 with NumPy 2.4."""

from __future__ import annotations

from typing import Any

from triton.runtime import interpreter


def allow_loops() -> None:
    """Triton 3.6 converts an array of one element to a number for the end of a loop, which NumPy 2.4 refuses."""
    patch_tensor = interpreter._patch_lang_tensor

    def patch_tensor_index(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_tensor_index
