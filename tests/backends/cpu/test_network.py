"""The op for a whole network: the layout of its steps, its checks, and that steps are flattened only
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from effkernels import EfficientNet
from effkernels._backends import network_layout, network_ops
from effkernels._backends.compiled import cpu_module
from effkernels._backends.network_ops import HeldNetwork, flatten, unflatten
from effkernels.ops._define import defined
from effkernels.ops._steps import LINEAR, Network, argument_names, run_by_steps
from effkernels.reference.elementwise import ACTIVATIONS
from effkernels_build.modules import network_layout_header
from networks import backbone_of, network_of, small
from requirements import needs_cpu_kernels
from source_tree import ROOT

pytestmark = needs_cpu_kernels
Arguments = tuple[Tensor, list[Tensor], list[int], list[float]]


def arguments(model: EfficientNet, x: Tensor) -> Arguments:
    """The arguments of the op."""
    network, tensors = network_of(model, x)
    flat = flatten(network)
    return x, [tensors[i] for i in flat.tensors], list(flat.numbers), list(flat.eps)


def test_layout_is_that_of_the_schemas() -> None:
    """Its names are the ops' own, in their order, and every argument is included."""
    options = {"activation", "residual", *network_ops._SEVERAL}
    for op, tensors in network_layout.STEPS.items():
        eps = network_layout.EPS[op]
        # A head that makes a map has no gate.
        left_out = options | {"gate"} if op == "pointwise_conv_bn_act" else options
        names = [n for n in argument_names(op) if n not in left_out and n not in eps]
        assert list(tensors) == names
        assert [n for n in argument_names(op) if n in eps] == list(eps)
    assert tuple(ACTIVATIONS) == network_layout.ACTIVATIONS
    several = [f"{o}_{end}" for o, ends in network_ops._SEVERAL.items() for end in ends]
    others = {"kind", "present", "activation", "residual", "returned"}
    assert set(network_layout.NUMBERS) == others | set(several)


def test_the_built_module_reads_this_layout() -> None:
    module = cpu_module()
    assert module is not None
    assert module.network_layout() == network_layout.fingerprint()
    header = network_layout_header(ROOT)
    assert header == network_layout.header()
    assert network_layout.fingerprint() in header


def test_another_layout_has_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = network_layout.fingerprint()
    names = network_layout.NUMBERS
    monkeypatch.setattr(network_layout, "NUMBERS", (*names[:3], names[4], names[3], *names[5:]))
    assert network_layout.fingerprint() != before


@pytest.mark.parametrize("options", [{}, {"padding": "same"}, {"num_classes": 0}])
def test_unflatten_inverts_flatten(options: dict[str, Any]) -> None:
    network, _ = network_of(small(**options).eval(), torch.randn(1, 3, 37, 50))
    flat = flatten(network)
    back = unflatten(flat.numbers, flat.eps)
    assert len(back.steps) == len(network.steps)
    for step, found in zip(network.steps, back.steps, strict=True):
        assert (found.op, dict(found.options)) == (step.op, dict(step.options))
        assert {n: flat.tensors[i] for n, i in found.tensors.items()} == dict(step.tensors)
    assert {flat.tensors[i] for i in back.matrices} == set(network.matrices)
    assert (network.steps[-1].op == LINEAR) == (options != {"num_classes": 0})


def maps_of(kind: str, x: Tensor) -> tuple[Network, list[Tensor]]:
    """The network and the tensors of models that make feature maps."""
    model = small().eval().requires_grad_(False)
    if kind == "the last map":
        return network_of(model, x, maps=True)
    indices = (3, -4, 3) if kind == "some maps" else None
    return network_of(backbone_of(model, out_indices=indices), x, maps=True)


MAPS = ("the last map", "all maps", "some maps")


@pytest.mark.parametrize("kind", MAPS)
def test_unflatten_inverts_flatten_of_maps(kind: str) -> None:
    network, _ = maps_of(kind, torch.randn(1, 3, 37, 50))
    flat = flatten(network)
    back = unflatten(flat.numbers, flat.eps)
    assert flat.maps is not None
    assert [back.maps[i] for i in flat.maps] == list(network.maps)
    assert sorted(set(network.maps)) == list(back.maps)
    assert max(network.maps) == len(network.steps) - 1 == len(back.steps) - 1
    assert (network.steps[-1].op == "pointwise_conv_bn_act") == (kind == "the last map")
    assert dict(back.steps[-1].options) == dict(network.steps[-1].options)


@pytest.mark.parametrize("kind", MAPS)
@torch.inference_mode()
def test_op_that_returns_maps_against_its_contract(kind: str) -> None:
    """Given its tensors, and holding them."""
    x = torch.randn(2, 3, 37, 50)
    network, tensors = maps_of(kind, x)
    held = held_by_c(tensors, network)
    given = arguments_of(held, x)
    expected = defined("network_maps").reference(*given)
    assert len(expected) == len(set(network.maps))
    ops = torch.ops.effkernels_cpu
    for op, case in ((ops.network_maps, given), (ops.network_maps_held, (x, held.holder.number))):
        real = op(*case)
        for ours, theirs in zip(real, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
            assert ours.stride() == theirs.stride()
        torch.library.opcheck(op.default, case, test_utils=("test_schema", "test_faketensor"))
        with FlopCounterMode(display=False) as counter:
            op(*case)
        with FlopCounterMode(display=False) as layers:
            run_by_steps(x, tensors, network)
        assert counter.get_total_flops() == layers.get_total_flops() > 0
    assert all(map(torch.equal, held(x), [real[i] for i in held._maps or ()]))


@torch.no_grad()
def test_each_op_returns_its_own_kind_of_results() -> None:
    x = torch.randn(1, 3, 32, 32)
    network, tensors = maps_of("all maps", x)
    case = arguments_of(held_by_c(tensors, network), x)
    with pytest.raises(RuntimeError, match="network: maps are returned by network_maps alone"):
        torch.ops.effkernels_cpu.network(*case)
    vectors = arguments(small().eval(), x)
    with pytest.raises(RuntimeError, match="network_maps: no step's map is returned"):
        torch.ops.effkernels_cpu.network_maps(*vectors)
    # A step behind the last map that is returned, and a map that is one of vectors.
    each, place = len(network_layout.NUMBERS), network_layout.NUMBERS.index("returned")
    for numbers in (case[2][:], vectors[2][:]):
        tensors, eps = (case if numbers == case[2] else vectors)[1::2]
        numbers[place] = 1
        numbers[place - each] = 0
        with pytest.raises(RuntimeError, match="the last map must be pooled, or returned"):
            torch.ops.effkernels_cpu.network_maps(x, tensors, numbers, eps)


@torch.no_grad()
def test_steps_are_flattened_once_per_size(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Network] = []

    def noted(network: Network) -> Any:
        written.append(network)
        return flatten(network)

    monkeypatch.setattr(network_ops, "flatten", noted)
    model = small().eval()
    for shape in ((1, 3, 32, 32), (2, 3, 32, 32), (1, 3, 40, 32), (1, 3, 32, 32)):
        for _ in range(3):
            model(torch.randn(shape))
    assert len(written) == 2
    model.load_state_dict(small().state_dict())
    model(torch.randn(1, 3, 32, 32))
    assert len(written) == 2
    model.head.bn.eps = 0.5
    model(torch.randn(1, 3, 32, 32))
    assert len(written) == 3


@torch.inference_mode()
def test_op_against_its_contract() -> None:
    case = arguments(small(num_classes=1000).eval(), torch.randn(2, 3, 37, 50))
    op = torch.ops.effkernels_cpu.network.default
    real = op(*case)
    torch.testing.assert_close(real, defined("network").reference(*case), rtol=1e-3, atol=1e-3)
    torch.library.opcheck(op, case, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("classes", [0, 1000])
@torch.inference_mode()
def test_op_that_takes_a_number_against_its_contract(classes: int) -> None:
    x = torch.randn(2, 3, 37, 50)
    network, tensors = network_of(small(num_classes=classes).eval(), x)
    held = held_by_c(tensors, network)
    case = (x, held.holder.number)
    op = torch.ops.effkernels_cpu.network_held.default
    assert torch.equal(op(*case), torch.ops.effkernels_cpu.network(*arguments_of(held, x)))
    expected = network_ops.OPS["cpu"]._held_reference(*case)
    torch.testing.assert_close(op(*case), expected, rtol=1e-3, atol=1e-3)
    torch.library.opcheck(op, case, test_utils=("test_schema", "test_faketensor"))
    with FlopCounterMode(display=False) as by_number:
        op(*case)
    with FlopCounterMode(display=False) as explicit:
        torch.ops.effkernels_cpu.network(*arguments_of(held, x))
    assert by_number.get_total_flops() == explicit.get_total_flops() > 0


def held_by_c(tensors: list[Tensor], network: Network) -> HeldNetwork:
    return HeldNetwork(network_ops.OPS["cpu"], tensors, network)


def arguments_of(held: HeldNetwork, x: Tensor) -> Arguments:
    return x, held.tensors, held.numbers, held.eps


@torch.no_grad()
def test_its_flops_are_those_of_the_layers() -> None:
    model, x = small().eval(), torch.randn(2, 3, 37, 50)
    case = arguments(model, x)
    with FlopCounterMode(display=False) as layers:
        model(x)
    with FlopCounterMode(display=False) as whole:
        torch.ops.effkernels_cpu.network(*case)
    assert whole.get_total_flops() == layers.get_total_flops() > 0


def test_op_refuses_gradients() -> None:
    case = arguments(small().eval(), torch.randn(1, 3, 32, 32))
    with pytest.raises(NotImplementedError, match="network: it has no gradient"):
        torch.ops.effkernels_cpu.network(*case)


def test_op_that_takes_a_number_refuses_gradients_and_other_numbers() -> None:
    x = torch.randn(1, 3, 32, 32)
    network, tensors = network_of(small().eval(), x)
    number = held_by_c(tensors, network).holder.number  # which is let go
    with pytest.raises(NotImplementedError, match="network_held: it has no gradient"):
        torch.ops.effkernels_cpu.network_held(x.requires_grad_(), number)
    with torch.no_grad(), pytest.raises(RuntimeError, match="no tensors are held by the number"):
        torch.ops.effkernels_cpu.network_held(x, number)


@torch.no_grad()
def test_what_is_held_is_read_anew_and_checked() -> None:
    """Other memory is read; a shape that does not fit is refused before anything is read."""
    x = torch.randn(1, 3, 32, 32)
    network, tensors = network_of(small().eval(), x)
    held = held_by_c(tensors, network)
    before = held(x)
    tensors[-2].data = -tensors[-2].data  # the classifier's weight
    after = held(x)
    assert not torch.allclose(after, before, rtol=1e-3, atol=1e-3)
    assert torch.equal(after, torch.ops.effkernels_cpu.network(*arguments_of(held, x)))
    tensors[0].data = tensors[0].data[:, :2]
    with pytest.raises(RuntimeError, match="weight must have the channels of x"):
        held(x)


@torch.no_grad()
def test_images_of_different_kinds_in_turn() -> None:
    """What is prepared for one kind is not taken for another."""
    images = [torch.randn(n, 3, h, w) for n, h, w in ((1, 32, 32), (2, 32, 32), (1, 40, 32))]
    images += [x.to(memory_format=torch.channels_last) for x in images]
    logits = held_by_c(*reversed(network_of(small().eval(), images[0])))
    maps = held_by_c(*reversed(maps_of("all maps", images[0])))
    for x in images * 2:
        assert torch.equal(logits(x), torch.ops.effkernels_cpu.network(*arguments_of(logits, x)))
        expected = torch.ops.effkernels_cpu.network_maps(*arguments_of(maps, x))
        assert all(map(torch.equal, maps(x), expected))


@torch.no_grad()
def test_a_weight_that_is_copied_at_each_call_is_read_anew() -> None:
    x = torch.randn(1, 3, 32, 32)
    network, tensors = network_of(small().eval(), x)
    weight = tensors[-2] = tensors[-2].t().contiguous().t()  # the classifier's
    assert not weight.is_contiguous()
    held = held_by_c(tensors, network)
    before = held(x)
    assert torch.equal(held(x), before)
    weight.neg_()
    after = held(x)
    assert not torch.allclose(after, before, rtol=1e-3, atol=1e-3)
    assert torch.equal(after, torch.ops.effkernels_cpu.network(*arguments_of(held, x)))


def batched(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


@pytest.mark.parametrize(
    "broken", ["numbers", "eps", "tensors", "kind", "not pooled", "two classifiers"]
)
def test_op_checks_the_layout(broken: str) -> None:
    x, tensors, numbers, eps = arguments(small().eval(), torch.randn(1, 3, 32, 32))
    each, each_eps = len(network_layout.NUMBERS), network_layout.MOST_EPS
    if broken == "numbers":
        numbers = numbers[:-1]
    elif broken == "eps":
        eps = eps[:-1]
    elif broken == "tensors":
        tensors = tensors[:-3]
    elif broken == "kind":
        numbers[each + network_layout.NUMBERS.index("kind")] = 7
    elif broken == "not pooled":
        numbers = [n for step in batched(numbers, each)[:-2] for n in step]
        eps = [e for step in batched(eps, each_eps)[:-2] for e in step]
    else:
        numbers, eps = numbers + numbers[-each:], eps + eps[-each_eps:]
        tensors = [*tensors, *tensors[-2:]]
    with torch.no_grad(), pytest.raises(RuntimeError, match="effkernels_cpu::network: "):
        torch.ops.effkernels_cpu.network(x, tensors, numbers, eps)
