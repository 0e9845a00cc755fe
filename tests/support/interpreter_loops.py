"""Loops in the interpreter of Triton 3.6 beside NumPy 2.4."""

from __future__ import annotations

from typing import Any

from triton.runtime import interpreter


def allow_loops() -> None:
    """NumPy 2.4 makes no number of an array of one element, as Triton 3.6 wants of it for the end of a loop."""
    patch_tensor = interpreter._patch_lang_tensor

    def patch_tensor_index(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_tensor_index
