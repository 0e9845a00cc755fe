"""The op for whole networks: the same as its steps one by one, in one piece of memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effkernels
from changes import CHANGES
from effkernels import EfficientNet, EfficientNetFeatures
from effkernels.analysis.cost import model_cost
from effkernels.analysis.memory import inference_memory
from host_shim import HostShim, ShimError
from networks import backbone_of, small, tiny
from specs.style import DTYPES
from tiers import slow_unless

ALIGNMENT = 256


def overlapping(uses: list[tuple[int, int, int]], offsets: list[int]) -> list[tuple[int, int]]:
    """Pairs of buffers that are in use at the same time, in the same place."""
    found = []
    for i, (bytes_, first, last) in enumerate(uses):
        for j, (others, begin, end) in enumerate(uses[:i]):
            same_time = first <= end and begin <= last
            if same_time and offsets[i] < offsets[j] + others and offsets[j] < offsets[i] + bytes_:
                found.append((i, j))
    return found


def test_buffers_in_use_at_the_same_time_do_not_overlap(shim: HostShim, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(20):
        uses = []
        for _ in range(draw.randrange(1, 30)):
            first = draw.randrange(12)
            uses.append((draw.choice([0, 1, 255, 4096, 9000]), first, draw.randrange(first, 12)))
        offsets, total = shim.call("memory_plan", uses)
        assert overlapping(uses, offsets) == []
        assert all(offset % ALIGNMENT == 0 for offset in offsets)
        assert all(o + use[0] <= total for o, use in zip(offsets, uses, strict=True))
        live = [sum(n for n, first, last in uses if first <= t <= last) for t in range(12)]
        assert max(live) <= total <= 2 * max(live) + len(uses) * ALIGNMENT


def test_memory_of_a_chain_of_blocks(shim: HostShim) -> None:
    """Expand, depthwise, project, twice: two maps of the expanded width, and the block's narrow input."""
    wide, narrow = 6 * 1024, 1024
    uses = [(narrow, 0, 3), (wide, 1, 2), (wide, 2, 3), (narrow, 3, 6), (wide, 4, 5), (wide, 5, 6)]
    offsets, total = shim.call("memory_plan", uses)
    assert overlapping(uses, offsets) == []
    assert total == 2 * wide + narrow * 2 or total == 2 * wide + narrow


def same(found: dict[str, Tensor]) -> None:
    """Each of the ops' results is that of the steps, bit for bit."""
    expected = found.pop("steps")
    for name, y in found.items():
        assert y.shape == expected.shape, name
        assert y.dtype == expected.dtype, name
        assert torch.equal(y, expected), name
    assert not expected.isnan().any()


# How a network runs does not depend on the type of its maps: each type, and each network, once.
NETWORKS = [
    ("efficientnet_b0", torch.bfloat16),
    ("efficientnet_b0", torch.float32),
    ("efficientnet_lite0", torch.float16),
]


@pytest.mark.parametrize(("name", "dtype"), slow_unless(NETWORKS[:1], NETWORKS), ids=str)
def test_it_is_the_same_as_its_steps(shim: HostShim, name: str, dtype: torch.dtype) -> None:
    same(shim.call("steps_and_network", tiny(name).to(dtype), torch.randn(2, 3, 40, 33).to(dtype)))


def multiples_of_8() -> EfficientNet:
    """All of its channels are, so that the kernels of tensor cores take its layers."""
    return small(depth=0.5, num_classes=16).eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("warpgroups", [False, True])
def test_every_kind_of_kernel(shim: HostShim, warpgroups: bool) -> None:
    shim.call("warpgroups", warpgroups)
    try:
        x = torch.randn(2, 3, 32, 32).bfloat16()
        same(shim.call("steps_and_network", multiples_of_8().bfloat16(), x))
    finally:
        shim.call("warpgroups", False)


INPUTS: dict[str, Callable[[], Tensor]] = {
    "bytes": lambda: torch.randint(256, (1, 3, 33, 40)).byte(),
    "NHWC": lambda: torch.randn(2, 3, 33, 40).contiguous(memory_format=torch.channels_last),
    "strided": lambda: torch.randn(2, 3, 40, 66)[..., ::2],
    "no images": lambda: torch.randn(0, 3, 33, 40),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_images_of_any_kind(shim: HostShim, kind: str) -> None:
    same(shim.call("steps_and_network", tiny(), INPUTS[kind]()))


def test_features_of_a_network_without_classifier(shim: HostShim) -> None:
    model = tiny()
    model.reset_classifier(0)
    same(shim.call("steps_and_network", model.bfloat16(), torch.randn(1, 3, 33, 40).bfloat16()))


def backbone(**options: Any) -> EfficientNetFeatures:
    return backbone_of(tiny(), **options)


MAPS: dict[str, Callable[[], EfficientNet | EfficientNetFeatures]] = {
    "the last map": tiny,
    "all maps": backbone,
    "some maps": lambda: backbone(out_indices=(2, -4, 2)),
}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    slow_unless(["all maps", "the last map"], list(zip(MAPS, DTYPES, strict=True))),
    ids=str,
)
def test_maps_are_those_of_the_steps(shim: HostShim, kind: str, dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 40, 33).to(dtype)
    found = shim.call("steps_and_maps", MAPS[kind]().to(dtype), x)
    expected = found.pop("steps")
    for maps in found.values():
        for ours, theirs in zip(maps, expected, strict=True):
            assert torch.equal(ours, theirs)
            assert (ours.dtype, ours.stride()) == (dtype, theirs.stride())
    assert not any(map_.isnan().any() for map_ in expected)


@pytest.mark.parametrize("kind", ["bytes", "no images"])
def test_maps_of_other_images(shim: HostShim, kind: str) -> None:
    found = shim.call("steps_and_maps", backbone(out_indices=(0, 1)), INPUTS[kind]())
    for ours, theirs in zip(found["held 1"], found["steps"], strict=True):
        assert torch.equal(ours, theirs)


def test_a_backbone_is_one_op(shim: HostShim) -> None:
    """As a call, and as it is explained."""
    model, x = backbone(out_indices=(0, 2)), torch.randn(1, 3, 33, 40)
    assert shim.call("ops_of_a_forward", model, x) == ["effkernels_cuda.network_maps.default"]
    launches, text = shim.call("explained", model, x)
    assert [launch.dependent for launch in launches] == [False] + [True] * (len(launches) - 1)
    assert "1 op call, 0 rows of PyTorch's own operators" in text
    operators, functions = shim.call("host_path", model, x)
    assert operators == ["effkernels_cuda::network_maps_held"]
    assert len(functions) <= 4, functions


@pytest.mark.parametrize("change", slow_unless(["data", "alignment"], CHANGES))
def test_what_is_held_is_read_anew(shim: HostShim, change: str) -> None:
    """Other contents, memory, strides or alignment of the tensors."""
    x = torch.randn(1, 3, 33, 40).bfloat16()
    same(shim.call("steps_and_network", tiny().bfloat16(), x, CHANGES[change]))


def test_maps_are_encoded_where_something_else_lies(shim: HostShim) -> None:
    """Kept by their turn in a run: what another one asks for in the same turn is encoded anew."""
    run = [0, 2, 4, 2]
    assert shim.call("kept_maps", run, run) == (True, 4)
    assert shim.call("kept_maps", run, [0, 2, 6, 2]) == (True, 5)
    assert shim.call("kept_maps", run, [2, 0, 4, 2]) == (True, 6)


@pytest.mark.slow
def test_a_held_network_keeps_maps_of_its_weights(shim: HostShim) -> None:
    """At least: the workspace may lie elsewhere in each call. A change of their memory encodes them anew."""
    model, x = multiples_of_8().bfloat16(), torch.randn(1, 3, 32, 32).bfloat16()
    shim.call("warpgroups", True)
    try:
        weights, (first, again, moved) = shim.call("maps_of_calls", model, x, CHANGES["data"])
    finally:
        shim.call("warpgroups", False)
    assert weights > 0
    assert first >= 4 * weights
    assert again <= first - weights
    assert weights <= moved <= first


# Bytes of the maps of an image in bfloat16: input, expanded, after the depthwise convolution, result.
SECOND_BLOCK = (16 * 112**2 * 2, 96 * 112**2 * 2, 96 * 56**2 * 2, 24 * 56**2 * 2)
THIRD_BLOCK = (24 * 56**2 * 2, 144 * 56**2 * 2, 144 * 56**2 * 2, 24 * 56**2 * 2)
LAST_BLOCK = (192 * 7**2 * 2, 1152 * 7**2 * 2, 1152 * 7**2 * 2, 320 * 7**2 * 2)
ANY_BYTES = 2**60
# Megabytes of cache; bytes a microsecond of memory and of the cache.
H100, SLOW_MEMORY = (50, 2.9e6, 5.2e6), (72, 0.87e6, 6e6)


@pytest.mark.parametrize(
    ("device", "images", "block", "most_bytes", "part"),
    [
        # The cache is not so much faster than memory that it pays for the launches of 19 parts.
        pytest.param(H100, 128, SECOND_BLOCK, ANY_BYTES, 128, id="fast memory"),
        # 10 images fit into half of the cache; so 13 parts, of 10 at most.
        pytest.param(SLOW_MEMORY, 128, SECOND_BLOCK, ANY_BYTES, 10, id="slow memory"),
        pytest.param(SLOW_MEMORY, 8, SECOND_BLOCK, ANY_BYTES, 8, id="all images fit"),
        pytest.param(SLOW_MEMORY, 128, LAST_BLOCK, ANY_BYTES, 128, id="small maps"),
        pytest.param((1, 0.87e6, 6e6), 128, SECOND_BLOCK, ANY_BYTES, 128, id="no image fits"),
        pytest.param(H100, 128, SECOND_BLOCK, 128 * sum(SECOND_BLOCK), 128, id="enough memory"),
        pytest.param(H100, 128, SECOND_BLOCK, 128 * sum(SECOND_BLOCK) // 2, 43, id="less memory"),
        pytest.param(
            H100, 128, THIRD_BLOCK, 128 * sum(SECOND_BLOCK) // 2, 64, id="less memory, third block"
        ),
        # What a part more costs in launches must be small beside the block's time.
        pytest.param(H100, 2, SECOND_BLOCK, 1, 2, id="less memory, few images"),
        pytest.param((50, 0.0, 5.2e6), 128, SECOND_BLOCK, 1, 128, id="unknown device"),
    ],
)
def test_images_of_a_part(
    shim: HostShim,
    device: tuple[int, float, float],
    images: int,
    block: tuple[int, ...],
    most_bytes: int,
    part: int,
) -> None:
    megabytes, *rates = device
    shim.call("memory", megabytes << 20, *rates)
    try:
        assert shim.call("images_of_a_part", images, *block, False, 4, most_bytes) == part
    finally:
        shim.call("memory")


@pytest.fixture
def in_parts(shim: HostShim) -> Iterator[None]:
    """On a device where large blocks of `tiny` run image by image, and others in pairs of images."""
    shim.call("memory", 2**15, 1.0, 1e6)
    yield
    shim.call("memory")


def close(ours: Tensor, theirs: Tensor) -> None:
    """Sums over pixels are added in another order, as their blocks depend on the number of images."""
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize(
    "name", slow_unless(["efficientnet_b0"], ["efficientnet_b0", "efficientnet_lite0"])
)
def test_blocks_in_parts(shim: HostShim, name: str) -> None:
    """Compute what they do in one: the last part may have fewer images than the others."""
    model, x = tiny(name), torch.randn(3, 3, 20, 17)
    launches, text = shim.call("explained", model, x)
    assert {launch.parts for launch in launches} == {1, 2, 3}
    assert "2 of 3" in text
    found = shim.call("steps_and_network", model, x)
    steps = found["steps"]
    same(found)
    shim.call("memory")
    close(steps, shim.call("steps_and_network", model, x)["steps"])


@pytest.mark.usefixtures("in_parts")
def test_maps_of_blocks_in_parts(shim: HostShim) -> None:
    """They are results, which parts of a block write and read."""
    model, x = backbone(), torch.randn(3, 3, 20, 17)
    found = shim.call("steps_and_maps", model, x)
    shim.call("memory")
    whole = shim.call("steps_and_maps", model, x)["steps"]
    for i, expected in enumerate(whole):
        close(found["steps"][i], expected)
        assert all(torch.equal(maps[i], found["steps"][i]) for maps in found.values())


@pytest.mark.parametrize("batch", [1, 128])
def test_memory_of_b0(shim: HostShim, batch: int) -> None:
    """Bytes beside those of eager PyTorch, without weights and images: 0.58 of its peak if blocks run in one part.

    That is the largest expanded map and what the depthwise kernel makes of it. With 128 images the largest blocks
    run in parts, and the peak is in the first one: the stem's map, and what the depthwise kernel makes of it.
    """
    model, size = effkernels.efficientnet_b0().eval().bfloat16(), 224
    cost = model_cost(model.config, batch_size=batch, resolution=size, dtype=torch.bfloat16)
    besides = cost.state_bytes + batch * 3 * size**2 * 2
    maps = inference_memory(cost)
    found = shim.call("network_bytes", model, (batch, 3, size, size))
    largest = 2 * 32 * 112**2 if batch == 128 else 96 * (112**2 + 56**2)
    assert batch * largest * 2 <= found <= 1.02 * batch * largest * 2
    assert found / (maps.eager - besides) < (0.35 if batch == 128 else 0.59)
    assert found <= maps.level1 - besides


@pytest.mark.parametrize("broken", ["numbers", "eps", "tensors", "kind", "channels"])
def test_what_would_be_out_of_bounds_is_refused(shim: HostShim, broken: str) -> None:
    said = {
        "numbers": "incomplete steps",
        "eps": "incomplete steps",
        "tensors": "too few tensors",
        "kind": "only one linear step|unknown step",
        "channels": "weight must have the channels of x",
    }
    with pytest.raises(ShimError, match=f"effkernels_cuda::network: ({said[broken]})"):
        shim.call("broken_network", tiny(), torch.randn(1, 3, 33, 40), broken)


def test_a_number_of_nothing_is_refused(shim: HostShim) -> None:
    with pytest.raises(ShimError, match="no tensors are held by the number 12345"):
        shim.call("private", "network_held", (torch.randn(1, 3, 33, 40), 12345))


def test_a_model_calls_it(shim: HostShim) -> None:
    """Once, and nothing else; a step that its kernels do not take sends the others back to calls of their own."""
    x = torch.randn(1, 3, 33, 40)
    assert shim.call("ops_of_a_forward", tiny(), x) == ["effkernels_cuda.network.default"]
    model = tiny()
    model.classifier = nn.Linear(model.classifier.in_features, 0)
    calls = shim.call("ops_of_a_forward", model, x)
    assert calls[0] == "effkernels_cuda.conv_bn_act.default"
    assert "effkernels_cuda.network.default" not in calls


def test_kernels_are_explained_as_they_are_launched(shim: HostShim) -> None:
    """The first of a network waits for all that was launched before; the others overlap."""
    launches, text = shim.call("explained", tiny().bfloat16(), torch.randn(1, 3, 33, 40).bfloat16())
    assert launches[0].kernel == "stem_nhwc_fwd"
    assert [launch.dependent for launch in launches] == [False] + [True] * (len(launches) - 1)
    names = {launch.kernel for launch in launches}
    assert "narrow_features" in names
    assert any(name.startswith("pointwise") for name in names)
    assert all(launch.blocks > 0 and launch.threads % 32 == 0 for launch in launches)
    assert f"{len(launches)} kernels launched, {len(launches) - 1} of them" in text
    assert "stem_nhwc_fwd" in text


def test_launches_do_not_overlap_where_they_must_not(shim: HostShim) -> None:
    shim.call("environment", "EFFKERNELS_DEPENDENT_LAUNCH", "0")
    try:
        launches, _ = shim.call("explained", tiny(), torch.randn(1, 3, 33, 40))
    finally:
        shim.call("environment", "EFFKERNELS_DEPENDENT_LAUNCH", None)
    assert launches
    assert not any(launch.dependent for launch in launches)
    shim.call("tensor_memory", False)  # as where device code is for older architectures
    try:
        launches, _ = shim.call("explained", tiny(), torch.randn(1, 3, 33, 40))
    finally:
        shim.call("tensor_memory", True)
    assert not any(launch.dependent for launch in launches)


def test_what_the_host_does_in_a_call(shim: HostShim) -> None:
    """One op, whatever the network, which calls none of PyTorch's by name; and hardly any Python."""
    for name in ("efficientnet_b0", "efficientnet_lite0"):
        operators, functions = shim.call("host_path", tiny(name), torch.randn(1, 3, 33, 40))
        assert operators == ["effkernels_cuda::network_held"]
        # The call of the network, and PyTorch's call of an operator.
        assert len(functions) <= 3, functions
