"""The device and the type of a computation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

_TITLES = {"float32": "fp32", "tf32": "tf32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Device:
    """The device and the type of a computation.

    ``kind`` is the name of a torch.device, ``type`` that of a torch.dtype; or "tf32" on a GPU: float32 with
    products that may be rounded to TF32.
    """

    kind: str = "cpu"
    type: str = "float32"

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of maps and weights."""
        found: torch.dtype = getattr(torch, "float32" if self.type == "tf32" else self.type)
        return found

    @property
    def suffix(self) -> str:
        """A suffix for the keys of cases; empty for float32 on a CPU."""
        return "" if self == CPU else f"-{self.kind}-{self.type}"

    @property
    def title(self) -> str:
        """For people."""
        return _TITLES[self.type]

    def put(self, what: Any) -> Any:
        """Move a tensor, a module or all tensors of a structure to the device, and cast them to the type."""
        if isinstance(what, nn.Module):
            return what.to(self.kind, self.dtype)
        return tree_map_only(Tensor, lambda tensor: tensor.to(self.kind, self.dtype), what)

    def set_precision(self) -> None:
        """Set whether PyTorch's products in this process may be rounded to TF32: float32 is exact for every
        contestant.
        """
        allowed = self.type == "tf32"
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


CPU = Device()
TYPES = {
    "cpu": ("float32", "bfloat16", "float16"),
    "cuda": ("bfloat16", "float16", "float32", "tf32"),
}
"""The types that can be chosen for each kind of device; the first is the default."""


def default_device() -> str:
    """The GPU if there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
