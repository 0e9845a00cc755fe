"""The cpu backend: the compiled ops of `effkernels._C`, registered for the schemas of `effkernels.ops`."""

from __future__ import annotations

import os
from types import ModuleType

import torch

from effkernels import dispatch, unchanged
from effkernels._backends import limits, network_layout
from effkernels._backends.compiled import compiled_status, cpu_module
from effkernels._backends.cpu_network import define_network, hold
from effkernels._backends.limits import other_dtypes, refusal
from effkernels.ops._define import define_private
from effkernels.ops._depthwise_conv_wgrad import DEPTHWISE_WGRAD, WgradArguments
from effkernels.ops._steps import NETWORK
from effkernels.ops._window import WindowArguments
from effkernels.ops.conv_bn_act import ConvArguments
from effkernels.ops.mbconv import MbconvArguments
from effkernels.ops.pointwise_conv_bn_act import PointwiseArguments, PointwisePoolArguments
from effkernels.ops.squeeze_excite import SqueezeExciteArguments
from effkernels.ops.squeeze_excite_gate import GateArguments


def refusals() -> dict[str, limits.Refusal]:
    """The ops that the loaded module has kernels for, and which arguments they refuse."""
    most = limits.of_module("cpu")
    rows = limits.too_many_rows(most.kernel_rows)
    block_rows = limits.too_many_rows(most.kernel_rows, "depthwise_weight")
    window = refusal(WindowArguments, rows, other_dtypes)
    return {
        "conv_bn_act": refusal(ConvArguments, rows, limits.other_dtypes_but_uint8_images),
        "depthwise_conv_bn_act": window,
        "depthwise_conv_bn_act_pool": window,
        "pointwise_conv_bn_act": refusal(PointwiseArguments, other_dtypes, limits.gate_not_float32),
        "pointwise_conv_bn_act_pool": refusal(PointwisePoolArguments, other_dtypes),
        "squeeze_excite_gate": refusal(GateArguments, limits.pooled_not_float32, other_dtypes),
        "squeeze_excite": refusal(SqueezeExciteArguments, other_dtypes),
        "mbconv": refusal(MbconvArguments, limits.no_hidden, block_rows, other_dtypes),
        DEPTHWISE_WGRAD.name: refusal(WgradArguments, rows, limits.not_float32),
    }


class _Stopwatch:
    """See :class:`effkernels.dispatch.Stopwatch`."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def record(self, on: bool) -> list[dispatch.NetworkTime]:
        return [
            dispatch.NetworkTime(
                seconds, threads, tuple(dispatch.StepTime(*step) for step in steps)
            )
            for seconds, threads, steps in self._module.record_steps(on)
        ]

    def multiply_add_rate(self, dtype: torch.dtype) -> float:
        rate: float = self._module.multiply_add_rate(dtype == torch.bfloat16)
        return rate


def register() -> None:
    """Make the backend available if `effkernels._C` is loaded.

    ``EFFKERNELS_CPU_ISA`` chooses among the compiled instruction sets that this processor supports; any other name
    is an error when the backend is first chosen.
    """
    module = cpu_module()
    if module is None:
        dispatch.mark_unavailable("cpu", compiled_status()["cpu"] or "not loaded")
        return
    layout = getattr(module, "network_layout", None)
    if (
        layout is None
        or layout() != network_layout.fingerprint()
        or not all(hasattr(module, name) for name in ("Objects", "record_steps"))
    ):
        dispatch.mark_unavailable("cpu", "effkernels._C was built from other sources: rebuild it")
        return
    isa = os.environ.get("EFFKERNELS_CPU_ISA", "").strip().lower()
    if isa:
        try:
            module.use_instruction_set(isa)
        except ValueError as error:
            dispatch.mark_mistaken("cpu", f"EFFKERNELS_CPU_ISA: {error}")
            return
    network = define_network()
    unchanged.use(module.Objects, hold)
    found = refusals()
    for name, refuses in found.items():
        dispatch.register_kernel("cpu", name, define_private(name, "cpu"), refuses)
    dispatch.register_kernel(
        "cpu", NETWORK, network.run, limits.steps_of_network(found), bind=network.bind
    )
    dispatch.register_stopwatch("cpu", _Stopwatch(module))
    dispatch.mark_available("cpu")
