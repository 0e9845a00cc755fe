"""How large the terms are that an op adds up: what the tolerance rule allows for."""

from __future__ import annotations

import torch.nn.functional as F

from cpu_kernels import in_float64, largest_sum, run_reference
from effkernels import ops
from op_cases import Expand, Squeeze


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


def expanded_magnitude(case: Expand) -> float:
    """The largest sum of absolute values that the depthwise convolution adds up, of the exact expanded map."""
    arguments = in_float64(case.arguments())
    conv, activation = arguments.pop("expand"), {"activation": arguments["activation"]}
    first = conv._asdict() | {"x": arguments.pop("x")} | activation
    (wide,) = run_reference(ops.pointwise_conv_bn_act, first)
    second = arguments.pop("depthwise")._asdict() | {"x": wide}
    return largest_sum(ops.depthwise_conv_bn_act, second | arguments)
