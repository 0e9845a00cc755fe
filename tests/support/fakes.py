"""Networks on a GPU that does not exist: CUDA tensors without data, and the calls made with them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from effkernels import create_model
from effkernels.models import EfficientNet
from parity import to_device


class Calls(TorchDispatchMode):
    """Counts the calls of each operator, by its name."""

    sees_effkernels_ops = True

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func).removesuffix(".default")] += 1
        return func(*args, **(kwargs or {}))


def fake_pass(
    name: str, dtype: torch.dtype = torch.float32, *, uint8: bool = False
) -> tuple[EfficientNet, Tensor, Calls]:
    """A network in eval mode, its result for one image, and the calls, within a FakeTensorMode."""
    with unset_fake_temporarily(), torch.device("meta"):
        model = create_model(name).eval().to(dtype)
        size = model.config.resolution
        image = torch.empty(1, 3, size, size, dtype=torch.uint8 if uint8 else dtype)
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            names = [name for name, value in held.items() if value is not None]
            values = to_device(tuple(held[name] for name in names), "cuda:0")
            held.update(zip(names, values, strict=True))
    with torch.no_grad(), Calls() as calls:
        logits = model(*to_device((image,), "cuda:0"))
    return model, logits, calls
