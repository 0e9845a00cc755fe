"""The cost model compared with published counts, and with the real network on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from archetypes import ARCHETYPES, BOTTLENECK, FUSED
from effkernels.analysis.cost import ByExecution, elements
from effkernels.models import CONFIGS, EfficientNet, build
from effkernels.ops._define import Op
from effkernels.scaling import (
    Coefficients,
    compound_scale,
    model_cost,
    realised_ratio,
    scaled_config,
)
from tiers import slow_unless

# Parameters (torchvision's num_params for B0 to B7, timm's for the rest), MACs of convolutions and
# classifier / 1e9 and activations / 1e6 (timm's benchmark) at the model's resolution.
COUNTS = {
    "efficientnet_b0": (5_288_548, "0.3858", "6.75"),
    "efficientnet_b1": (7_794_184, "0.6868", "10.88"),
    "efficientnet_b2": (9_109_994, "0.9936", "13.83"),
    "efficientnet_b3": (12_233_232, "1.8271", "23.83"),
    "efficientnet_b4": (19_341_616, "4.3938", "49.49"),
    "efficientnet_b5": (30_389_784, "10.2664", "98.86"),
    "efficientnet_b6": (43_040_704, "19.0676", "167.39"),
    "efficientnet_b7": (66_347_960, "37.7459", "289.94"),
    "efficientnet_b8": (87_413_142, "62.5975", "442.89"),
    "efficientnet_l2": (480_309_308, "475.70", "1707.39"),
    "efficientnet_lite0": (4_652_008, "0.385", None),
    "efficientnet_lite1": (5_416_680, "0.600", None),
    "efficientnet_lite2": (6_092_072, "0.860", None),
    "efficientnet_lite3": (8_197_096, "1.383", None),
    "efficientnet_lite4": (13_006_568, "2.553", None),
}
CONFIGURATIONS = {**CONFIGS, **ARCHETYPES}
# The formula: phi, parameters, MACs / 1e9.
FORMULA_COUNTS = [
    (0.5, 8_441_486, "0.731"),
    (1, 9_109_994, "0.993"),
    (2, 12_255_408, "1.811"),
    (3, 16_350_296, "3.251"),
    (3.5, 19_330_016, "4.179"),
    (5, 33_726_740, "11.37"),
    (6, 45_464_648, "20.1"),
    (7, 68_741_810, "39.7"),
]
# Megabytes moved for one bf16 image: eager (every op a pass), level 1, level 2.
MEGABYTES = {
    "efficientnet_b0": ("93.9", "27.4", "13.9"),
    "efficientnet_b4": ("712", "204", "112"),
    "efficientnet_b5": ("1436", "410", "230"),
    "efficientnet_b7": ("4247", "1208", "689"),
}


def assert_prints(value: float, printed: str) -> None:
    """``value`` rounded to the digits of ``printed`` is ``printed``."""
    digits = len(printed.partition(".")[2])
    assert f"{value:.{digits}f}" == printed


def network(name: str, **options: object) -> EfficientNet:
    model = build(CONFIGURATIONS[name], device="meta", **options)  # type: ignore[call-overload]
    assert isinstance(model, EfficientNet)
    return model


def counted_flops(run: Callable[[Tensor], Tensor], *shape: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(torch.empty(shape, device="meta"))
    return counter.get_total_flops()


@pytest.fixture
def through_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the FLOP counter see the public ops, as with a compiled backend.

    Its global hooks would make every layer unfused, and the torch backend calls no public op.
    """

    def through_dispatcher(op: Op, *arguments: Any) -> Any:
        return getattr(torch.ops.effkernels, op.name)(*arguments)

    monkeypatch.setattr(Op, "__call__", through_dispatcher)
    for module in ("mbconv", "conv_bn_act", "squeeze_excite"):
        monkeypatch.setattr(f"effkernels.nn.{module}.any_global_hook", lambda: False)


def test_every_named_model_is_tested() -> None:
    assert set(COUNTS) == set(CONFIGS)


@pytest.mark.parametrize("name", COUNTS)
def test_published_counts(name: str) -> None:
    params, macs, activations = COUNTS[name]
    cost = model_cost(name)
    assert cost.params == params
    assert_prints(cost.macs / 1e9, macs)
    if activations is not None:
        assert_prints(cost.activations / 1e6, activations)


def test_l2_at_its_training_resolution() -> None:
    assert_prints(model_cost("efficientnet_l2", 475).macs / 1e9, "170.89")


@pytest.mark.parametrize(("phi", "params", "macs"), FORMULA_COUNTS)
def test_counts_of_the_formula(phi: float, params: int, macs: str) -> None:
    cost = model_cost(scaled_config(compound_scale(phi)))
    assert cost.params == params
    assert_prints(cost.macs / 1e9, macs)


@pytest.mark.parametrize(
    ("width", "depth", "resolution", "params", "macs"),
    [
        (1.0, 4.0, 224, 20_091_856, "1.575"),
        (2.0, 1.0, 224, 18_122_720, "1.450"),
        (1.0, 1.0, 448, 5_288_548, "1.538"),
        (1.2, 1.4, 300, 12_233_232, "1.827"),
    ],
)
def test_single_dimensions_of_the_papers_table_7(
    width: float, depth: float, resolution: int, params: int, macs: str
) -> None:
    """B0 scaled in one dimension, and in all three; the paper prints FLOPs up to 20 % higher."""
    coefficients = Coefficients(width, depth, resolution, dropout=0.2)
    cost = model_cost(replace(CONFIGS["efficientnet_b0"], coefficients=coefficients))
    assert cost.params == params
    assert_prints(cost.macs / 1e9, macs)


@pytest.mark.parametrize("name", MEGABYTES)
def test_bytes_moved(name: str) -> None:
    moved = model_cost(name, dtype=torch.bfloat16).bytes_moved
    for value, printed in zip(
        (moved.eager, moved.level1, moved.level2), MEGABYTES[name], strict=True
    ):
        assert_prints(value / 1e6, printed)


def test_bytes_moved_of_a_block_by_hand() -> None:
    """stages.1.0 of B0, 16 > 96 > 24 channels, 112 to 56 pixels."""
    x, e, d, p = 16 * 112**2, 96 * 112**2, 96 * 56**2, 24 * 56**2
    cost = model_cost("efficientnet_b0", dtype=torch.float16)
    rows = {r.kind: r.bytes_moved for r in cost.layers if r.name.startswith("stages.1.0.")}
    assert rows["expand"].eager == 2 * (x + e + 2 * e + 2 * e)
    assert rows["depthwise"].eager == 2 * (e + d + 2 * d + 2 * d)
    assert rows["squeeze_excite"].eager == 2 * (d + 2 * d)
    assert rows["project"].eager == 2 * (d + p + 2 * p)
    assert [rows[k].level1 for k in ("expand", "depthwise", "squeeze_excite", "project")] == [
        2 * (x + e),
        2 * (e + d),
        0,
        2 * (d + p),
    ]
    assert [rows[k].level2 for k in ("expand", "depthwise")] == [2 * x, 2 * d]


def test_a_residual_is_read_and_eager_also_writes_its_sum() -> None:
    cost = model_cost("efficientnet_b0", dtype=torch.float16)
    row = next(r for r in cost.layers if r.name == "stages.1.1.project")
    d, p = 144 * 56**2, 24 * 56**2
    assert row.residual
    assert row.bytes_moved.eager == 2 * (d + p + 2 * p + 3 * p)
    assert row.bytes_moved.level1 == row.bytes_moved.level2 == 2 * (d + 2 * p)


LARGEST = ("efficientnet_b6", "efficientnet_b7", "efficientnet_b8", "efficientnet_l2")


@pytest.mark.parametrize("name", slow_unless(set(CONFIGURATIONS) - set(LARGEST), CONFIGURATIONS))
def test_real_network_has_these_parameters_and_flops(name: str) -> None:
    cost, model = model_cost(CONFIGURATIONS[name]), network(name).eval()
    assert cost.params == sum(p.numel() for p in model.parameters())
    side = model.config.resolution
    assert counted_flops(model, 1, 3, side, side) == cost.flops


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 3, 97, 64), {}),
        ((2, 4, 33, 1), {"in_channels": 4, "num_classes": 10}),
        ((2, 3, 31, 57), {"num_classes": 0}),
        ((0, 3, 32, 32), {}),
    ],
)
@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite2", *ARCHETYPES])
def test_flops_at_any_size(name: str, shape: tuple[int, ...], options: dict[str, int]) -> None:
    """With half of the blocks of a named network, which still has each kind of them."""
    config = CONFIGURATIONS[name]
    if name not in ARCHETYPES:
        config = replace(config, coefficients=replace(config.coefficients, depth=0.5))
    model = build(config, device="meta", **options)  # type: ignore[call-overload]
    cost = model_cost(config, (shape[2], shape[3]), batch_size=shape[0], **options)
    assert cost.params == sum(p.numel() for p in model.parameters())
    for training in (False, True):
        assert counted_flops(model.train(training), *shape) == cost.flops


@pytest.mark.usefixtures("through_ops")
@pytest.mark.parametrize("name", ARCHETYPES)
def test_flops_of_the_ops_and_of_convolutions_beside_them(name: str) -> None:
    cost = model_cost(CONFIGURATIONS[name], (37, 50), batch_size=2)
    model = network(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty((2, 3, 37, 50), device="meta"))
    assert counter.get_total_flops() == cost.flops
    assert torch.ops.effkernels.pointwise_conv_bn_act in counter.get_flop_counts()["Global"]


def test_bytes_moved_of_fused_blocks_by_hand() -> None:
    cost = model_cost(FUSED, dtype=torch.float16)
    rows = {r.name.removeprefix("stages."): r.bytes_moved for r in cost.layers}
    # 16 channels, 16 pixels; one convolution and a residual.
    x = 16 * 16**2
    assert rows["0.0.project"].eager == 2 * (x + x + 2 * x + 2 * x + 3 * x)
    assert rows["0.0.project"].level1 == rows["0.0.project"].level2 == 2 * 3 * x
    # 16 > 64 > 24 channels, to 8 pixels; the expanded map is written at every level.
    e, p = 64 * 8**2, 24 * 8**2
    assert rows["1.0.expand"] == ByExecution(2 * (x + 5 * e), 2 * (x + e), 2 * (x + e))
    assert rows["1.0.project"] == ByExecution(2 * (e + 3 * p), 2 * (e + p), 2 * (e + p))


def test_bytes_moved_of_bottlenecks_by_hand() -> None:
    cost = model_cost(BOTTLENECK, dtype=torch.float16)
    rows = {r.name.removeprefix("stages."): r.bytes_moved for r in cost.layers}
    # 64 > 32 > 128 channels, 16 to 8 pixels, with a shortcut.
    x, r, c, y = 64 * 16**2, 32 * 16**2, 32 * 8**2, 128 * 8**2
    assert rows["1.0.reduce"] == ByExecution(2 * (x + 5 * r), 2 * (x + r), 2 * (x + r))
    assert rows["1.0.conv"].level2 == 2 * (r + c)
    assert rows["1.0.shortcut"] == ByExecution(2 * (x + 3 * y), 2 * (x + y), 2 * (x + y))
    # BatchNorm, the sum of two maps, the activation.
    assert rows["1.0.restore"] == ByExecution(
        2 * (c + y + 2 * y + 3 * y + 2 * y), 2 * (c + 2 * y), 2 * (c + 2 * y)
    )
    # With squeeze-excitation the result has to be there before it can be gated, added and activated.
    c, y = 32 * 4**2, 128 * 4**2
    assert rows["2.1.restore"].level1 == 2 * (c + y)
    assert rows["2.1.squeeze_excite"] == ByExecution(2 * 8 * y, 2 * 3 * y, 2 * 3 * y)


@pytest.mark.usefixtures("through_ops")
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("shape", [(1, 3, 224, 224), (3, 3, 97, 64)])
@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite2"])
def test_flops_of_the_ops(name: str, shape: tuple[int, ...], padding: str) -> None:
    cost = model_cost(name, (shape[2], shape[3]), batch_size=shape[0])
    model = network(name, padding=padding).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(shape, device="meta"))
    assert counter.get_total_flops() == cost.flops
    blocks = sum(r.macs for r in cost.layers if r.name.startswith("stages."))
    assert counter.get_flop_counts()["Global"][torch.ops.effkernels.mbconv] == 2 * blocks


@pytest.mark.parametrize("name", ["efficientnet_b1", *ARCHETYPES])
def test_rows_are_the_modules_of_the_network(name: str) -> None:
    """Names, shapes and parameters of each row, compared with what hooks see in the running
    network.
    """
    model = network(name).eval()
    seen: dict[str, tuple[torch.Size, torch.Size]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _, inputs, output: seen.update({name: (inputs[0].shape, output.shape)})

    cost = model_cost(CONFIGURATIONS[name], (65, 96), batch_size=2)
    for row in cost.layers:
        module = model.get_submodule(row.name)
        module.register_forward_hook(watch(row.name))
        assert row.params == sum(p.numel() for p in module.parameters())
        assert row.buffers == sum(b.numel() for b in module.buffers() if b.is_floating_point())
    model(torch.empty(2, 3, 65, 96, device="meta"))
    assert list(seen) == [row.name for row in cost.layers]
    for row in cost.layers[:-1]:
        assert seen[row.name] == ((2, *row.in_shape), (2, *row.out_shape))
    last = cost.layers[-1]
    assert seen["classifier"] == ((2, last.in_shape[0]), (2, last.out_shape[0]))


def test_state_bytes_are_those_of_the_state_dict() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        state = network("efficientnet_b2", dtype=dtype).state_dict().values()
        size = sum(t.numel() * t.element_size() for t in state)
        assert model_cost("efficientnet_b2", dtype=dtype).state_bytes == size


def test_totals_scale_with_the_batch_and_the_dtype() -> None:
    one, four = model_cost("efficientnet_b0"), model_cost("efficientnet_b0", batch_size=4)
    half = model_cost("efficientnet_b0", dtype=torch.float16)
    assert four.params == one.params
    assert four.macs == 4 * one.macs
    assert four.activations == 4 * one.activations
    assert four.bytes_moved == one.bytes_moved.scaled(4)
    assert one.bytes_moved == half.bytes_moved.scaled(2)


def test_realised_and_nominal_ratio() -> None:
    assert realised_ratio("efficientnet_b0") == 1.0
    scale = compound_scale(1)
    assert (scale.nominal_ratio, round(realised_ratio(scale), 2)) == (2.0, 2.57)
    assert round(realised_ratio(compound_scale(7))) == 103
    assert round(realised_ratio("efficientnet_b7"), 1) == 97.8
    lite = realised_ratio(scale, base="efficientnet_lite0")
    assert 1.5 < lite < realised_ratio(scale)


def test_scaled_config_is_the_models() -> None:
    import effkernels

    model = effkernels.efficientnet(phi=1.5, device="meta")
    assert model.config.coefficients == scaled_config(compound_scale(1.5)).coefficients
    assert model_cost(model.config).params == sum(p.numel() for p in model.parameters())


def test_elements() -> None:
    assert elements((3, 4, 5)) == 60


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("efficientnet_b9",), {}, ValueError, "no model named 'efficientnet_b9'"),
        ((7,), {}, TypeError, "model must be a name or an EfficientNetConfig"),
        (("efficientnet_b0", 0), {}, ValueError, "resolution must be at least 1, got 0"),
        (("efficientnet_b0", (224, 224, 3)), {}, ValueError, r"a side or \(H, W\)"),
        (("efficientnet_b0", 224.5), {}, TypeError, "resolution must be a side or"),
        (("efficientnet_b0",), {"batch_size": -1}, ValueError, "batch_size must be at least 0"),
        (("efficientnet_b0",), {"in_channels": 0}, ValueError, "in_channels must be at least 1"),
        (("efficientnet_b0",), {"dtype": torch.int8}, TypeError, "dtype must be a floating-point"),
    ],
)
def test_bad_input(
    arguments: tuple[object, ...],
    options: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        model_cost(*arguments, **options)  # type: ignore[arg-type]


def test_a_cost_prints_its_numbers() -> None:
    cost = model_cost("efficientnet_b3", (300, 320), batch_size=4, dtype=torch.bfloat16)
    text = str(cost)
    assert text.startswith("efficientnet_b3, 4 images of 300 x 320, bfloat16\n")
    moved = cost.bytes_moved
    for number in (
        *(cost.params, cost.macs, cost.flops, cost.activations, cost.state_bytes),
        *(moved.eager, moved.level1, moved.level2),
    ):
        assert f"{number:,}" in text
        assert number > 0
    assert f"params={cost.params}, macs={cost.macs}" in repr(cost)
    assert f"bytes_moved={moved!r}" in repr(cost)
    assert f"layers=<{len(cost.layers)}>" in repr(cost)
    assert "1 image of 224 x 224, float32" in str(model_cost("efficientnet_b0"))
