"""How large the terms are that an op adds up: what the tolerance rule allows for."""

from __future__ import annotations

import torch.nn.functional as F

from cpu_kernels import in_float64
from op_cases import Squeeze


def gate_magnitude(case: Squeeze) -> float:
    """The largest sum of absolute values before the sigmoid, times the sigmoid's slope, times the images."""
    arguments = in_float64(case.arguments())
    x = (arguments["pooled"] if case.size is None else arguments["x"]).abs().nan_to_num(0, 0, 0)
    if not x.numel():
        return 0.0
    weights = {
        name: None if value is None else value.abs()
        for name, value in arguments.items()
        if name.startswith(("reduce", "expand"))
    }
    pooled = x if case.size is None else x.mean((2, 3))
    hidden = F.linear(pooled, weights["reduce_weight"], weights["reduce_bias"])
    sums = F.linear(hidden, weights["expand_weight"], weights["expand_bias"]) / 4
    return sums.max().item() * (1.0 if case.size is None else x.max().item())
