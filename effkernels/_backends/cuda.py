"""The cuda backend: the kernels of `effkernels._C_cuda`, registered under the contracts of `effkernels.ops`."""

from __future__ import annotations

import torch

from effkernels import dispatch, launch_timing
from effkernels._backends import cuda_launches, cuda_network, limits
from effkernels._backends.compiled import compiled_status, cuda_module
from effkernels._backends.limits import other_dtypes, refusal
from effkernels.ops._define import define_private
from effkernels.ops._steps import NETWORK, run_by_steps
from effkernels.ops._window import WindowArguments
from effkernels.ops.conv_bn_act import ConvArguments
from effkernels.ops.expand_depthwise_conv_bn_act import ExpandDepthwiseArguments
from effkernels.ops.mbconv import MbconvArguments
from effkernels.ops.pointwise_conv_bn_act import PointwiseArguments, PointwisePoolArguments
from effkernels.ops.squeeze_excite import SqueezeExciteArguments
from effkernels.ops.squeeze_excite_gate import GateArguments


def refusals() -> dict[str, limits.Refusal]:
    """The ops that the loaded module has kernels for, and what these do not take."""
    most = limits.of_module("cuda")
    rows = limits.too_many_rows(most.kernel_rows)
    terms = limits.too_many_terms(most.conv_terms)
    hidden = limits.too_many_hidden(most.gate_hidden_channels)
    window = refusal(WindowArguments, rows, other_dtypes)
    pooled = refusal(PointwisePoolArguments, other_dtypes)
    depthwise_rows = limits.too_many_rows(most.kernel_rows, "depthwise_weight")
    expanded = refusal(ExpandDepthwiseArguments, depthwise_rows, other_dtypes)
    block = refusal(
        MbconvArguments,
        limits.no_hidden,
        depthwise_rows,
        limits.too_many_hidden(most.gate_hidden_channels, "se_reduce_weight"),
        other_dtypes,
    )
    return {
        "conv_bn_act": refusal(ConvArguments, terms, rows, limits.other_dtypes_but_uint8_images),
        "depthwise_conv_bn_act": window,
        "depthwise_conv_bn_act_pool": window,
        "expand_depthwise_conv_bn_act": expanded,
        "expand_depthwise_conv_bn_act_pool": expanded,
        "pointwise_conv_bn_act": refusal(PointwiseArguments, other_dtypes, limits.gate_not_float32),
        "pointwise_conv_bn_act_pool": pooled,
        "pointwise_conv_bn_act_squeeze": pooled,
        "squeeze_excite_gate": refusal(
            GateArguments, hidden, limits.pooled_not_float32, other_dtypes
        ),
        "squeeze_excite": refusal(SqueezeExciteArguments, hidden, other_dtypes),
        "mbconv": block,
    }


def register() -> None:
    """Make the backend available where `effkernels._C_cuda` is loaded and there is a GPU."""
    if cuda_module() is None:
        dispatch.mark_unavailable("cuda", compiled_status()["cuda"] or "not loaded")
        return
    if not (cuda_network.same_layout() and cuda_launches.there()):
        dispatch.mark_unavailable(
            "cuda", "effkernels._C_cuda was built from other sources: rebuild it"
        )
        return
    found = refusals()
    for name, refuses in found.items():
        private = define_private(name, "cuda")
        dispatch.register_kernel("cuda", name, private, limits.on_gpu(refuses))
    dispatch.register_launch_record(cuda_launches.record_launches)
    launch_timing.register("cuda", cuda_launches.Timer())
    network = cuda_network.define_network()
    refuses = cuda_network.refusal(limits.steps_of_network(found))
    step_by_step = dispatch.Kernel(run_by_steps, limits.on_gpu(limits.network), by_parts=True)
    dispatch.register_kernel(
        "cuda", NETWORK, network.run, refuses, bind=network.bind, otherwise=step_by_step
    )
    # device_count() asks NVML and does not initialise CUDA, so processes that are forked later can still use it.
    if torch.cuda.device_count() == 0:
        dispatch.mark_unavailable("cuda", "there is no CUDA device")
    else:
        dispatch.mark_available("cuda")
