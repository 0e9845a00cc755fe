"""Profiles of networks by the shim's clocks, which say beforehand what each launch takes; and what launches are for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from effkernels.analysis.cost import LayerCost, model_cost
from effkernels.dispatch import Launch
from effkernels.models import EfficientNet, EfficientNetConfig, build
from effkernels.models.config import EFFICIENTNET_STAGES
from effkernels.models.scaling import Coefficients
from effkernels.profiling import GpuProfile
from host_shim import HostShim
from randomise import randomise

# Nanoseconds of the device, as in `clocks.cpp`.
EVENT, OVERLAP = 700, 400
SIZE = 12, 9


def network() -> EfficientNet:
    """Blocks that expand and that do not, with a residual and without."""
    first, second = EFFICIENTNET_STAGES[:2]
    config = EfficientNetConfig(
        "three blocks",
        Coefficients(0.25, 1.0, 64, 0.2),
        (first, replace(second, repeats=2)),
        stem_channels=8,
        head_channels=128,
    )
    return randomise(build(config, num_classes=10)).eval().requires_grad_(False)


def nanoseconds(launch: Launch) -> int:
    return 1000 + 10 * launch.blocks + launch.threads


@pytest.fixture
def in_parts(shim: HostShim) -> Iterator[None]:
    """On a device where large blocks run image by image."""
    shim.call("memory", 2**13, 1.0, 1e6)
    yield
    shim.call("memory")


@pytest.mark.usefixtures("in_parts")
def test_times_go_to_their_rows(shim: HostShim) -> None:
    """Those of all parts of a block to one row; and nothing changes what the network computes."""
    model, x = network(), torch.randn(3, 3, *SIZE)
    launches, _ = shim.call("explained", model, x)
    found, results = shim.call("profiled", model, x, 1)
    assert all(torch.equal(y, results[0]) for y in results)
    owners: dict[tuple[str, str], list[Launch]] = defaultdict(list)
    names = [
        block for stage, blocks in enumerate(model.stages) for block in blocks_of(stage, blocks)
    ]
    for launch in launches:
        last = "head" if launch.step == len(names) + 1 else "classifier"
        name = ["stem", *names, last][min(launch.step, len(names) + 1)]
        owners[f"{name}.{launch.layer}".strip("."), launch.kernel].append(launch)
    assert [(row.name, row.kernel) for row in found.rows] == list(owners)
    for row, own in zip(found.rows, owners.values(), strict=True):
        assert row.launches == len(own) == own[0].parts
        assert row.seconds == pytest.approx(1e-9 * sum(map(nanoseconds, own)))
        assert row.bytes == sum(launch.bytes for launch in own)
        assert row.flops == sum(launch.flops for launch in own)
        assert row.memory == pytest.approx(row.bytes / found.memory_rate)
        assert row.arithmetic == pytest.approx(row.flops / found.flop_rate)
    assert {row.launches for row in found.rows} == {1, 3}
    totals_are_right(found, launches)
    assert found.queued
    assert found.around == ""


def blocks_of(stage: int, blocks: torch.nn.Module) -> list[str]:
    return [f"stages.{stage}.{i}" for i, _ in enumerate(blocks.children())]


def totals_are_right(found: GpuProfile, launches: list[Launch]) -> None:
    """An event is no part of any time; launches of the whole run overlap but for the first."""
    alone = 1e-9 * sum(map(nanoseconds, launches))
    assert found.event == pytest.approx(1e-9 * EVENT)
    assert found.launches == len(launches)
    assert found.seconds == pytest.approx(alone)
    assert found.apart == pytest.approx(alone)
    assert found.whole == pytest.approx(alone - 1e-9 * OVERLAP * (len(launches) - 1))
    assert found.host > 0.0


def test_a_slow_host_is_waited_for(shim: HostShim) -> None:
    """The device would wait for it in the first run, and is held up for longer in the next."""
    model, x = network(), torch.randn(1, 3, *SIZE)
    launches, _ = shim.call("explained", model, x)
    found, _ = shim.call("profiled", model, x, 1, 40_000)
    assert found.queued
    totals_are_right(found, launches)


def layer_of(launch: Launch, names: list[str], layers: dict[str, LayerCost]) -> LayerCost:
    last = {"head": len(names) + 1, "classifier": len(names) + 2}
    for name, step in {"stem": 0, **last}.items():
        if launch.step == step:
            return layers[name]
    return layers[f"{names[launch.step - 1]}.{launch.layer}"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_work_is_that_of_the_cost_model(shim: HostShim, dtype: torch.dtype) -> None:
    """All FLOPs, and all bytes: maps as the cost model counts them, parameters, and vectors of an image in float32."""
    model, images, size = network().to(dtype), 2, 12
    launches, _ = shim.call("explained", model, torch.randn(images, 3, size, size).to(dtype))
    cost = model_cost(model.config, size, batch_size=images, num_classes=10, dtype=dtype)
    layers = {layer.name: layer for layer in cost.layers}
    names = [
        block for stage, blocks in enumerate(model.stages) for block in blocks_of(stage, blocks)
    ]
    by_layer: dict[str, list[Launch]] = defaultdict(list)
    for launch in launches:
        by_layer[layer_of(launch, names, layers).name].append(launch)
    assert list(by_layer) == list(layers)
    for name, own in by_layer.items():
        layer = layers[name]
        assert sum(launch.flops for launch in own) == 2 * layer.macs, name
        vectors = 4 * images * layer.in_shape[0]
        parameters = (layer.params + layer.buffers) * dtype.itemsize
        least = layer.bytes_moved.level1 + parameters
        moved = sum(launch.bytes for launch in own)
        if layer.kind in ("stem", "expand"):
            assert moved == least, name
        elif layer.kind == "project":
            assert moved == least + vectors, name  # the gate
        elif layer.kind == "depthwise":
            # Sums over one or more parts of an image.
            assert (moved - least) % vectors == 0, name
            assert moved > least, name
        elif layer.kind == "squeeze_excite":
            assert (moved - parameters) % vectors == 0, name
            assert moved - parameters >= 2 * vectors, name
        elif layer.kind == "head":
            assert moved >= least + 4 * images * layer.out_shape[0], name
        else:
            results = images * layer.out_shape[0] * dtype.itemsize
            assert moved >= parameters + results + vectors, name
