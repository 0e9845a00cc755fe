"""Profiles: what is counted equals the cost model's, times add up, and what cannot be measured is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import effkernels
from effkernels import EfficientNet, Profile, dispatch, profiling
from effkernels.analysis.cost import LINEAR, LayerCost, model_cost
from effkernels.profiling.bounds import ACTIVATION_INSTRUCTIONS, Arithmetic, Machine
from effkernels.profiling.steps import rows_text, steps_of
from networks import small_copy
from requirements import needs_cpu_kernels

SIZE, IMAGES = 64, 2
PRODUCTS = ("stem", "expand", "project", "head", "classifier")


def images(count: int = IMAGES, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE).to(dtype)


@pytest.fixture(scope="module", params=["efficientnet_b0", "efficientnet_lite0"])
def found(request: pytest.FixtureRequest) -> Profile:
    return effkernels.profile(small_copy(request.param).eval(), images(), runs=3)


@needs_cpu_kernels
@pytest.mark.parametrize(
    ("name", "activation"), [("efficientnet_b0", "silu"), ("efficientnet_lite0", "relu6")]
)
def test_arithmetic_is_that_of_the_cost_model(name: str, activation: str) -> None:
    model = effkernels.create_model(name).eval()
    with torch.no_grad():
        steps = steps_of(model, images(), "cpu")
    cost = model_cost(name, SIZE, batch_size=IMAGES)
    instructions = ACTIVATION_INSTRUCTIONS[activation]
    assert len(steps.arithmetic) == len(steps.rows)
    for row, counted in zip(steps.rows, steps.arithmetic, strict=True):
        layers = [c for c in cost.layers if f"{c.name}.".startswith(f"{row.name}.")]

        def total(*kinds: str, layers: list[LayerCost] = layers) -> int:
            return sum(layer.macs for layer in layers if layer.kind in kinds)

        activated = {
            layer.kind: layer.activations * instructions
            for layer in layers
            if layer.kind not in (*LINEAR, "classifier", "squeeze_excite")
        }
        wide = activated.pop("depthwise", 0)
        assert counted.product == total(*PRODUCTS)
        assert counted.depthwise == total("depthwise") + wide
        assert counted.activation == sum(activated.values())
        assert counted.gate == total("squeeze_excite")
        assert 2 * counted.macs == row.flops


@needs_cpu_kernels
def test_the_number_of_threads_stays() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = effkernels.profile(small_copy().eval(), images(), runs=1)
        assert (torch.get_num_threads(), found.machine.threads) == (2, 2)
    finally:
        torch.set_num_threads(before)


@needs_cpu_kernels
def test_rows_are_those_of_explain() -> None:
    model = small_copy().eval()
    explained = effkernels.explain(model, images()).rows
    rows = effkernels.profile(model, images(), runs=1).rows
    of_explain = [(r.name, r.op, r.in_shape, r.out_shape, r.flops, r.bytes) for r in explained]
    assert [(r.name, r.op, r.in_shape, r.out_shape, r.flops, r.bytes) for r in rows] == of_explain


@needs_cpu_kernels
def test_times_add_up(found: Profile) -> None:
    for row in found.rows:
        assert min(row.work.values()) >= 0.0
        assert row.waiting >= -0.02 * row.seconds
        assert sum(row.work.values()) + row.waiting == pytest.approx(row.seconds)
    steps = sum(row.seconds for row in found.rows)
    assert steps + found.preparation + found.python == pytest.approx(found.seconds)
    assert steps > 0.0
    assert found.preparation >= 0.0
    assert found.python > 0.0
    assert sum(found.work.values()) == pytest.approx(steps)
    assert found.bound == pytest.approx(sum(row.bound for row in found.rows))


@needs_cpu_kernels
def test_time_is_spent_on_what_a_step_does(found: Profile) -> None:
    blocks = [row for row in found.rows if row.op == "mbconv"]
    stem, last = found.rows[0], found.rows[-1]
    for row in blocks:
        assert min(row.work[k] for k in ("product", "depthwise", "packing", "output")) > 0.0
        assert (row.work["gate"] > 0.0) == (found.model == "efficientnet_b0")
    assert stem.work["product"] > 0.0
    assert stem.work["rows"] > 0.0
    assert stem.work["depthwise"] == stem.work["gate"] == 0.0
    assert {kind for kind, spent in last.work.items() if spent} == {"product"}


@needs_cpu_kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(dtype: torch.dtype) -> None:
    found = effkernels.profile(small_copy().eval().to(dtype), images(dtype=dtype), runs=1)
    assert found.dtype == dtype
    assert min(row.work["product"] for row in found.rows) > 0.0


@needs_cpu_kernels
def test_all_images_are_timed_where_they_go_through_in_chunks() -> None:
    """Their maps have 1.6 MB an image, and chunks of images at most 8."""
    found = effkernels.profile(small_copy().eval(), torch.randn(12, 3, 224, 224), runs=2)
    assert found.preparation < 0.5 * found.seconds


def test_a_bound_is_the_longer_of_arithmetic_and_memory() -> None:
    machine = Machine(threads=2, product_rate=1e9, vector_rate=1e8, bandwidth=1e9)
    counted = Arithmetic(product=4000, depthwise=200, activation=600)
    bounds = machine.seconds(counted)
    assert bounds == pytest.approx(
        {"product": 2e-6, "depthwise": 1e-6, "activation": 3e-6, "gate": 0.0}
    )
    assert machine.memory(4000) == pytest.approx(2e-6)
    for memory, bound in ((1e-6, 6e-6), (7e-6, 7e-6)):
        row = profiling.ProfileRow("", "", (), (), 1e-5, {}, 0.0, bounds, memory, flops=0, bytes=0)
        assert row.bound == pytest.approx(bound)


@needs_cpu_kernels
def test_nothing_is_noted_unless_asked_for_and_in_this_thread() -> None:
    model, x = small_copy().eval(), images()
    stopwatch = dispatch.stopwatch("cpu")
    assert stopwatch is not None
    effkernels.profile(model, x, runs=1)
    with torch.no_grad():
        plain = model(x)
        assert stopwatch.record(True) == []
        other = threading.Thread(target=torch.no_grad()(model), args=(x,))
        other.start()
        other.join()
        assert stopwatch.record(True) == []
        timed = model(x)
        assert len(stopwatch.record(False)) == 1
        model(x)
        assert stopwatch.record(False) == []
    assert torch.equal(timed, plain)


@needs_cpu_kernels
def test_as_text_and_as_json(found: Profile) -> None:
    first, second, *lines = str(found).splitlines()
    assert first.startswith(f"{found.model}, 2x3x64x64 float32 on ")
    assert "GFLOP/s a thread in products" in second
    assert sum(line.startswith("stages.") for line in lines) == len(found.rows) - 3
    assert lines[-1].startswith("total ")
    document = found.as_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert [row["name"] for row in document["rows"]] == [row.name for row in found.rows]
    assert document["rows"][1]["bound"] == found.rows[1].bound


@needs_cpu_kernels
def test_feature_maps() -> None:
    model = effkernels.create_model("efficientnet_lite0", features_only=True).eval()
    rows = effkernels.profile(model, images(), runs=1).rows
    assert [row.op for row in rows] == ["conv_bn_act", *["mbconv"] * (len(rows) - 1)]
    assert min(row.work["product"] for row in rows) > 0.0


@needs_cpu_kernels
def test_a_model_around_a_network() -> None:
    model = small_copy("efficientnet_lite0", num_classes=0).eval()
    around = nn.Sequential(
        nn.AvgPool2d(2), model, nn.Linear(model.head.conv.weight.shape[0], 3)
    ).eval()
    inside = effkernels.profile(around, torch.randn(1, 3, 2 * SIZE, 2 * SIZE), runs=1)
    assert [row.name for row in inside.rows][:2] == ["1.stem", "1.stages.0.0"]
    assert inside.rows[0].in_shape == (1, 3, SIZE, SIZE)
    with torch.no_grad():
        steps = steps_of(around, torch.randn(1, 3, 2 * SIZE, 2 * SIZE), "cpu")
    assert rows_text(steps.around) == "- (avg_pool2d on torch), 2 (addmm on torch)"


def hooked(model: EfficientNet) -> EfficientNet:
    model.stages[2].register_forward_hook(lambda *_: None)
    return model


@needs_cpu_kernels
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: model.train(), r"training mode: call model\.eval\(\) first"),
        (hooked, "hooks.*without hooks"),
        (lambda _: nn.Conv2d(3, 8, 3).eval(), "calls no network of effkernels"),
        (lambda model: nn.Sequential(model, _Again(model)).eval(), "calls 2 networks"),
    ],
    ids=["training", "hooks", "not ours", "two"],
)
def test_what_does_not_run_as_one_op(change: Callable[..., nn.Module], said: str) -> None:
    with pytest.raises(ValueError, match=f"^profile: .*{said}"):
        effkernels.profile(change(small_copy().eval()), images())


class _Again(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, _: Tensor) -> Tensor:
        y: Tensor = self.model(images())
        return y


@needs_cpu_kernels
def test_other_backends_and_devices() -> None:
    model = small_copy().eval()
    with (
        effkernels.use_backend("torch"),
        pytest.raises(ValueError, match=r"^profile: .*torch was requested .*use_backend"),
    ):
        effkernels.profile(model, images())
    with FakeTensorMode():
        x = torch.empty(1, 3, SIZE, SIZE, device="xpu")
    with pytest.raises(ValueError, match="input is on xpu:0: profile measures models on the CPU"):
        effkernels.profile(nn.Identity(), x)


@needs_cpu_kernels
def test_bad_arguments() -> None:
    model = small_copy().eval()
    with pytest.raises(ValueError, match="profile: runs must be"):
        effkernels.profile(model, images(), runs=0)
    with pytest.raises(ValueError, match="profile: input has no images"):
        effkernels.profile(model, images(0))
    with pytest.raises(TypeError, match=r"profile: model must be a torch\.nn\.Module"):
        effkernels.profile("efficientnet_b0", images())  # type: ignore[arg-type]
