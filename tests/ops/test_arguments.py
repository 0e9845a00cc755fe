"""Named arguments and their groups agree with the schemas."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from effkernels.ops import _define, mbconv  # noqa: F401 - defines the ops
from effkernels.ops._arguments import Gate
from effkernels.ops._schema import ConvNorm, Norm, named, schema
from effkernels.ops._window import WindowArguments
from effkernels.ops.conv_bn_act import ConvArguments
from effkernels.ops.expand_depthwise_conv_bn_act import ExpandDepthwiseArguments
from effkernels.ops.mbconv import MbconvArguments
from effkernels.ops.pointwise_conv_bn_act import PointwiseArguments, PointwisePoolArguments
from effkernels.ops.squeeze_excite import SqueezeExciteArguments
from effkernels.ops.squeeze_excite_gate import GateArguments

ARGUMENTS: dict[str, Any] = {
    "conv_bn_act": ConvArguments,
    "depthwise_conv_bn_act": WindowArguments,
    "depthwise_conv_bn_act_pool": WindowArguments,
    "expand_depthwise_conv_bn_act": ExpandDepthwiseArguments,
    "expand_depthwise_conv_bn_act_pool": ExpandDepthwiseArguments,
    "mbconv": MbconvArguments,
    "pointwise_conv_bn_act": PointwiseArguments,
    "pointwise_conv_bn_act_pool": PointwisePoolArguments,
    "pointwise_conv_bn_act_squeeze": PointwisePoolArguments,
    "squeeze_excite": SqueezeExciteArguments,
    "squeeze_excite_gate": GateArguments,
}


def test_every_op_has_named_arguments() -> None:
    not_public = {
        "network",
        "network_held",
        "network_maps",
        "network_maps_held",
        "depthwise_conv_wgrad",
    }
    assert set(ARGUMENTS) == set(_define._defined) - not_public


@pytest.mark.parametrize("name", ARGUMENTS)
def test_names_are_those_of_the_schema_in_its_order(name: str) -> None:
    stated = getattr(torch.ops.effkernels, name).default._schema.arguments
    assert tuple(a.name for a in stated) == ARGUMENTS[name]._fields


# Callers of torch.ops and files of exported models depend on these.
PUBLIC = {
    "pointwise_conv_bn_act": (
        "(Tensor x, Tensor weight, Tensor? bias, Tensor? bn_weight, Tensor? bn_bias, "
        "Tensor? running_mean, Tensor? running_var, float eps, Tensor? gate, Tensor? residual, "
        "str activation) -> Tensor"
    ),
    "depthwise_conv_bn_act_pool": (
        "(Tensor x, Tensor weight, Tensor? bias, Tensor? bn_weight, Tensor? bn_bias, "
        "Tensor? running_mean, Tensor? running_var, float eps, SymInt[2] stride, "
        "SymInt[4] padding, SymInt[2] dilation, str activation) -> (Tensor, Tensor)"
    ),
    "mbconv": (
        "(Tensor x, Tensor? expand_weight, Tensor? expand_bias, Tensor? expand_bn_weight, "
        "Tensor? expand_bn_bias, Tensor? expand_running_mean, Tensor? expand_running_var, "
        "float expand_eps, Tensor depthwise_weight, Tensor? depthwise_bias, "
        "Tensor? depthwise_bn_weight, Tensor? depthwise_bn_bias, Tensor? depthwise_running_mean, "
        "Tensor? depthwise_running_var, float depthwise_eps, Tensor? se_reduce_weight, "
        "Tensor? se_reduce_bias, Tensor? se_expand_weight, Tensor? se_expand_bias, "
        "Tensor project_weight, Tensor? project_bias, Tensor? project_bn_weight, "
        "Tensor? project_bn_bias, Tensor? project_running_mean, Tensor? project_running_var, "
        "float project_eps, SymInt[2] stride, SymInt[4] padding, bool residual, str activation) "
        "-> Tensor"
    ),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_schemas_do_not_change(name: str) -> None:
    result = "(Tensor, Tensor)" if name.endswith("_pool") else "Tensor"
    assert schema(ARGUMENTS[name], result) == PUBLIC[name]


def in_order(arguments: Any) -> Any:
    """Arguments in which each field holds its own name."""
    return arguments(*arguments._fields)


def prefixed(group: Any, prefix: str) -> tuple[str, ...]:
    return tuple(prefix + field for field in group._fields)


# Groups as the public functions unpack them; the properties must return the same.
GROUPS = [
    (WindowArguments, "norm", Norm, ""),
    (ConvArguments, "norm", Norm, ""),
    (PointwiseArguments, "norm", Norm, ""),
    (ExpandDepthwiseArguments, "expand", ConvNorm, "expand_"),
    (ExpandDepthwiseArguments, "depthwise", ConvNorm, "depthwise_"),
    (MbconvArguments, "expand", ConvNorm, "expand_"),
    (MbconvArguments, "depthwise", ConvNorm, "depthwise_"),
    (MbconvArguments, "gate", Gate, "se_"),
    (MbconvArguments, "project", ConvNorm, "project_"),
]


@pytest.mark.parametrize(("arguments", "name", "group", "prefix"), GROUPS)
def test_groups_are_fields_side_by_side(arguments: Any, name: str, group: Any, prefix: str) -> None:
    """So that they can be unpacked where an op's arguments are built."""
    found = getattr(in_order(arguments), name)
    assert isinstance(found, group)
    assert found == prefixed(group, prefix)
    first = arguments._fields.index(found[0])
    assert arguments._fields[first : first + len(found)] == found


def test_a_convolution_begins_with_its_weight() -> None:
    assert ConvNorm._fields == ("weight", *Norm._fields)


def test_absent_groups_are_none() -> None:
    block = in_order(MbconvArguments)
    assert block._replace(expand_weight=None).expand is None
    assert block._replace(se_reduce_weight=None).gate is None
    with pytest.raises(AssertionError, match="without se_expand_weight"):
        _ = block._replace(se_expand_weight=None).gate


def test_a_pooled_convolution_is_one_without_gate_and_residual() -> None:
    found = in_order(PointwisePoolArguments).convolution
    assert found == in_order(PointwiseArguments)._replace(gate=None, residual=None)


def test_the_layers_gate_has_its_weights() -> None:
    found = in_order(SqueezeExciteArguments).gate("pooled")
    assert found == in_order(GateArguments)


def test_flat_arguments_get_their_names() -> None:
    run = named(GateArguments, lambda a: (a.pooled, a.activation))
    assert run(*GateArguments._fields) == ("pooled", "activation")
