"""What ``explain`` reports about a forward pass, compared with independent counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import effkernels
from effkernels import EfficientNet, Explanation, dispatch, ops
from effkernels.analysis.cost import LayerCost, ModelCost, elements, model_cost
from effkernels.nn import ConvBnAct
from effkernels.ops._define import defined
from networks import small_copy, tiny
from requirements import needs_cpu_kernels

SIZE, IMAGES = 64, 2
NETWORKS = ["efficientnet_b0", "efficientnet_lite0"]
DTYPES = [torch.float32, torch.float16]


@pytest.fixture(scope="module", params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    network: str = request.param
    return network


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.fixture(scope="module")
def model(name: str, dtype: torch.dtype) -> EfficientNet:
    return effkernels.create_model(name, dtype=dtype).eval()


@pytest.fixture(scope="module")
def cost(name: str, dtype: torch.dtype) -> ModelCost:
    return model_cost(name, SIZE, batch_size=IMAGES, dtype=dtype)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(IMAGES, 3, SIZE, SIZE).to(dtype)


def state_bytes(module: nn.Module) -> int:
    """Bytes of weights and statistics, without BatchNorm's counters."""
    state = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * t.element_size() for t in state if t.is_floating_point())


def layers_of(cost: ModelCost, prefix: str) -> list[LayerCost]:
    return [layer for layer in cost.layers if f"{layer.name}.".startswith(f"{prefix}.")]


def blocks(model: EfficientNet) -> list[str]:
    return [f"stages.{s}.{b}" for s, stage in enumerate(model.stages) for b, _ in enumerate(stage)]


@needs_cpu_kernels
def test_a_classifier_is_one_call_of_steps(model: EfficientNet, cost: ModelCost) -> None:
    dtype = cost.dtype
    found = effkernels.explain(model, images(dtype))
    assert [row.name for row in found.rows] == ["stem", *blocks(model), "head", "classifier"]
    assert [row.op for row in found.rows] == [
        "conv_bn_act",
        *["mbconv"] * len(blocks(model)),
        "pointwise_conv_bn_act_pool",
        "linear",
    ]
    assert {row.backend for row in found.rows} == {"cpu"}
    assert {row.call for row in found.rows} == {1}
    assert {row.why for row in found.rows} == {"one call of network: the fastest backend takes it"}
    assert (found.calls, found.notes, found.dtype) == (1, (), dtype)
    for row in found.rows:
        layers = layers_of(cost, row.name)
        read, written = elements(layers[0].in_shape), elements(layers[-1].out_shape)
        read, written = read * dtype.itemsize, written * dtype.itemsize
        if row.name == "head":  # pooled in float32
            written = cost.layers[-1].in_shape[0] * 4
        elif row.name == "classifier":
            read = cost.layers[-1].in_shape[0] * 4
        weights = state_bytes(model.get_submodule(row.name))
        assert row.bytes == IMAGES * (read + written) + weights, row
        assert row.flops == 2 * sum(layer.macs for layer in layers), row
        assert row.dtype == (torch.float32 if row.name == "classifier" else dtype)
    assert found.rows[1].in_shape == (IMAGES, *layers_of(cost, "stages.0.0")[0].in_shape)
    assert found.rows[1].out_shape == (IMAGES, *layers_of(cost, "stages.0.0")[-1].out_shape)
    assert found.flops == cost.flops


def test_plain_pytorch_runs_the_parts_of_blocks(model: EfficientNet, cost: ModelCost) -> None:
    x, size = images(cost.dtype), cost.dtype.itemsize
    with effkernels.use_backend("torch"):
        found = effkernels.explain(model, x)
    inner = [layer.name for layer in cost.layers]
    assert [row.name for row in found.rows] == ["", *inner]
    assert [(row.op, row.call) for row in found.rows if row.call is None] == [
        ("clone", None),  # conversion to NHWC
        ("mean + addmm", None),
    ]
    assert {row.backend for row in found.rows} == {"torch"}
    assert found.calls == len(inner) - 1
    forced = "torch was requested (use_backend or EFFKERNELS_BACKEND)"
    assert {row.why for row in found.rows} == {forced, "PyTorch's own, around the ops"}
    expands = [elements((layer.out_shape[0], 1, 1)) for layer in cost.layers]
    gates = sum(c for c, layer in zip(expands, cost.layers, strict=True) if "squeeze" in layer.name)
    head, classes = cost.layers[-2].out_shape, cost.layers[-1].out_shape[0]
    beside = (
        2 * x.nbytes  # conversion to NHWC
        + 2 * IMAGES * size * elements(head)  # the head's map, which level 1 does not write
        + IMAGES * size * (2 * head[0] + classes)  # pooled, logits
        + 4 * IMAGES * gates * 4  # float32: pooled written and read, gates written and read
    )
    assert found.bytes == cost.bytes_moved.level1 + state_bytes(model) + beside
    assert found.flops == cost.flops


@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_with_global_hooks_runs_module_by_module(name: str) -> None:
    model = effkernels.create_model(name).eval()
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        found = effkernels.explain(model, images())
    finally:
        handle.remove()
    assert {(row.backend, row.call) for row in found.rows} == {("torch", None)}
    assert "there are hooks for all modules" in {row.why for row in found.rows}
    cost = model_cost(name, SIZE, batch_size=IMAGES)
    with FlopCounterMode(display=False) as counter:
        model(images())
    assert found.flops == cost.flops == counter.get_total_flops()
    if name == "efficientnet_lite0":  # without the small tensors of squeeze-excitation
        ends = 2 * cost.layers[-1].in_shape[0] + cost.layers[-1].out_shape[0]
        beside = 2 * images().nbytes + IMAGES * 4 * ends
        assert found.bytes == cost.bytes_moved.eager + state_bytes(model) + beside


@needs_cpu_kernels
def test_a_hook_inside_of_a_block() -> None:
    model = small_copy().eval()
    model.stages[1][0].depthwise.conv.register_forward_hook(lambda *_: None)
    found = effkernels.explain(model, images())
    rows = {row.name: row for row in found.rows}
    hooked = rows["stages.1.0.depthwise"]
    assert (hooked.backend, hooked.call) == ("torch", None)
    assert hooked.op == "convolution + native_batch_norm + silu"
    assert hooked.why == "stages.1.0.depthwise.conv has a hook"
    assert (rows["stages.1.0.expand"].op, rows["stages.1.0.expand"].backend) == (
        ("pointwise_conv_bn_act", "cpu")
    )
    assert "stages.1.0" not in rows
    others = [name for name in blocks(model) if name != "stages.1.0"]
    assert all((rows[name].op, rows[name].backend) == ("mbconv", "cpu") for name in others)
    assert len({rows[name].call for name in others}) == len(others)
    assert found.notes == (
        "layer by layer, not by one call of network: there are hooks",
        "hooks on stages.1.0.depthwise.conv",
    )


@needs_cpu_kernels
def test_why_a_faster_backend_did_not_take_it() -> None:
    model = small_copy().double().eval()
    found = effkernels.explain(model, torch.randn(1, 3, 16, 16, dtype=torch.float64))
    assert {row.backend for row in found.rows} == {"torch"}
    reasons = {row.why for row in found.rows if row.op == "depthwise_conv_bn_act_pool"}
    assert reasons == {
        "not on cpu: it computes float32, bfloat16 and float16, not torch.float64",
    }
    assert "not torch.float64" in found.notes[0]


@needs_cpu_kernels
def test_parts_say_why_their_block_is_not_one_call() -> None:
    class Block(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            none = torch.empty(0, 3, 1, 1), torch.empty(0), torch.empty(3, 0, 1, 1), torch.ones(3)
            wide, narrow = torch.ones(3, 1, 3, 3), torch.ones(2, 3, 1, 1)
            return ops.mbconv(x, None, ops.Conv(wide), ops.Gate(*none), ops.Conv(narrow), padding=1)

    found = effkernels.explain(Block(), images())
    calls = [row for row in found.rows if row.call]
    assert [row.op for row in calls] == [
        "depthwise_conv_bn_act_pool",
        "squeeze_excite_gate",
        "pointwise_conv_bn_act",
    ]
    assert {row.backend for row in calls} == {"cpu"}
    for row in calls:
        assert (
            row.why == "mbconv not on cpu: its blocks need gates with at least one hidden channel"
        )
        assert row.name == ""


def test_training_leaves_the_model_as_it_was() -> None:
    model, x = small_copy(dropout=0.5), images()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    found = effkernels.explain(model, x)
    assert torch.equal(torch.get_rng_state(), random)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert model.training
    rows = {row.name: row for row in found.rows}
    assert rows["stages.3.1.expand"].why == "BatchNorm is in training mode"
    assert "native_batch_norm" in rows["stages.3.1.expand"].op
    assert rows["stages.3.1.squeeze_excite"].op == "squeeze_excite"  # which has no BatchNorm
    assert found.notes == (
        "layer by layer, not by one call of network: the model is in training mode",
    )


def test_names_of_a_fused_copy() -> None:
    model = small_copy().eval()
    with effkernels.use_backend("torch"):
        names = [row.name for row in effkernels.explain(model, images()).rows]
        assert [row.name for row in effkernels.explain(model.fuse(), images()).rows] == names


def test_names_in_another_model() -> None:
    model = nn.Sequential(ConvBnAct(3, 8, 3), nn.Conv2d(8, 4, 1), nn.ReLU()).eval()
    rows = effkernels.explain(model, images().contiguous(memory_format=torch.channels_last)).rows
    assert [(row.name, row.op) for row in rows] == [
        ("0", "conv_bn_act"),
        ("1", "convolution + relu"),
    ]
    assert rows[1].flops == 2 * IMAGES * 4 * 8 * SIZE**2
    (row,) = effkernels.explain(model[0], images()).rows
    assert row.name == "ConvBnAct"


def test_casts_of_autocast_show() -> None:
    model = small_copy().eval()
    with torch.autocast("cpu", torch.bfloat16), effkernels.use_backend("torch"):
        found = effkernels.explain(model, images())
    casts = [row for row in found.rows if row.call is None and row.name == "stem"]
    assert [row.op for row in casts] == ["clone + _to_copy + _to_copy"]
    stem = next(row for row in found.rows if row.op == "conv_bn_act")
    assert (stem.name, stem.dtype) == ("stem", torch.bfloat16)
    assert found.notes[0].endswith("torch.autocast is on")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A "cuda" backend for CPU tensors that has a kernel only for dense convolutions."""
    fake = dispatch.Backend("cuda", ("cpu",))
    monkeypatch.setitem(dispatch._BACKENDS, "cuda", fake)
    monkeypatch.setitem(dispatch._BACKENDS, "cpu", dispatch.Backend("cpu", ("cpu",), "on holiday"))
    monkeypatch.setattr(dispatch, "_warned", set())

    def run(*arguments: Any) -> Tensor:
        return effkernels.reference.conv_bn_act(*arguments)

    dispatch.register_kernel("cuda", "conv_bn_act", run, lambda *_: None)


@pytest.mark.usefixtures("fast")
def test_the_reasons_of_all_faster_backends_are_shown() -> None:
    rows = {row.name: row for row in effkernels.explain(small_copy().eval(), images()).rows}
    assert (rows["stem"].backend, rows["stem"].why) == ("cuda", "the fastest backend takes it")
    assert (rows["head"].backend, rows["head"].why) == (
        "torch",
        "not on cuda: it has no kernel for this op; not on cpu: on holiday",
    )


EXPAND_DEPTHWISE = "expand_depthwise_conv_bn_act_pool"


@pytest.mark.usefixtures("fast")
def test_layers_in_one_kernel_are_one_row() -> None:
    contract = defined(EXPAND_DEPTHWISE)
    reason = "two kernels are expected to be faster"

    def rejects(*arguments: Any) -> str | None:
        return reason if arguments[0].shape[2] < 16 else None

    dispatch.register_kernel("cuda", EXPAND_DEPTHWISE, contract.reference, rejects)
    model, x = small_copy().eval(), images()
    found = effkernels.explain(model, x)
    with effkernels.use_backend("torch"):
        apart = {row.name: row for row in effkernels.explain(model, x).rows}
    rows = {row.name: row for row in found.rows}
    one = rows["stages.1.0.expand+depthwise"]
    assert (one.op, one.backend) == (EXPAND_DEPTHWISE, "cuda")
    expand, depthwise = apart["stages.1.0.expand"], apart["stages.1.0.depthwise"]
    assert (one.in_shape, one.out_shape) == (expand.in_shape, depthwise.out_shape)
    assert one.flops == expand.flops + depthwise.flops
    between = IMAGES * elements(expand.out_shape[1:]) * 4
    assert one.bytes == expand.bytes + depthwise.bytes - 2 * between
    # If it is refused, the rows of its parts say why.
    (last,) = {row.name.rsplit(".", 1)[0] for row in found.rows if row.name.startswith("stages.6")}
    why = rows[f"{last}.expand"].why
    assert why.startswith(f"{EXPAND_DEPTHWISE} not on cuda: {reason}; ")
    assert rows[f"{last}.depthwise"].why.startswith(f"{EXPAND_DEPTHWISE} not on cuda: {reason}")
    assert found.flops == sum(row.flops for row in apart.values())


def test_as_text() -> None:
    model = small_copy(depth=1.0).eval()
    with effkernels.use_backend("torch"):
        found = effkernels.explain(model, images())
    lines = str(found).splitlines()
    assert lines[0].endswith(
        "2x3x64x64 float32 on cpu: 65 op calls, 2 rows of PyTorch's own operators"
    )
    assert lines[1] == found.notes[0]
    header, *table, _, _, _ = lines[3:]  # after an empty line; another one and two reasons follow
    assert header.split() == (
        ["layer", "op", "backend", "input", "output", "dtype", "MB", "GFLOPs", "why"]
    )
    assert len(table) == len(found.rows) + 1
    ends = {len(line.rsplit(maxsplit=1)[0]) for line in [header, *table[:-1]]}
    assert len(ends) == 1, "the column is not aligned"
    assert table[-1].split() == ["total", f"{found.bytes / 1e6:.3f}", f"{found.flops / 1e9:.3f}"]
    reasons = dict(line.split(" ", 1) for line in lines if line.startswith("["))
    for row, line in zip(found.rows, table[:-1], strict=True):
        assert reasons[line.split()[-1]] == row.why


def counting() -> tuple[list[int], Any]:
    compiled: list[int] = []

    def backend(graph: Any, _: Any) -> Any:
        compiled.append(1)
        return graph.forward

    return compiled, backend


def test_compiled_code_stays_compiled() -> None:
    torch._dynamo.reset()
    model, x = tiny(stages=3), images()
    count, backend = counting()
    compiled = torch.compile(model.forward, backend=backend, fullgraph=True)
    with torch.no_grad():
        first = compiled(x)
        effkernels.explain(model, x)
        torch.testing.assert_close(compiled(x), first)
    assert len(count) == 1


def test_grad_and_inference_mode_do_not_matter() -> None:
    model, x = small_copy().eval(), images()
    found = effkernels.explain(model, x)
    assert isinstance(found, Explanation)
    with torch.inference_mode():
        assert effkernels.explain(model, x) == found
        assert effkernels.explain(model, x.clone()) == found  # an inference tensor


def test_an_error_of_the_model_ends_the_recording() -> None:
    model = small_copy().eval()
    with pytest.raises(ValueError, match="the input must have 3 channels"):
        effkernels.explain(model, torch.ones(1, 4, 8, 8))
    assert dispatch._choice.watcher is None
    with pytest.raises(RuntimeError, match="fails"):
        effkernels.explain(_Failing(), torch.ones(1, 3, 8, 8))
    assert dispatch._choice.watcher is None


class _Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("it fails")


@pytest.mark.parametrize(
    ("model", "x", "error", "said"),
    [
        (print, torch.ones(1, 3, 8, 8), TypeError, "model must be a torch.nn.Module, got builtin"),
        (nn.ReLU(), [1.0], TypeError, "input must be a tensor, got list"),
        (nn.ReLU(), torch.ones(3, 8, 8), ValueError, "input must be (N, C, H, W), got shape (3, 8"),
        (
            nn.ReLU(),
            torch.ones(1, 3, 8, 8).int(),
            TypeError,
            "input must be floating point or uint8, got",
        ),
        (
            nn.ReLU(),
            torch.ones(1, 3, 8, 8, device="meta"),
            ValueError,
            "input is on the meta device",
        ),
        (
            nn.Conv2d(3, 3, 1, device="meta"),
            torch.ones(1, 3, 8, 8),
            ValueError,
            "input is on cpu, model on meta",
        ),
    ],
)
def test_bad_arguments(model: Any, x: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as caught:
        effkernels.explain(model, x)
    assert str(caught.value).startswith(f"explain: {said}")


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_models_are_refused(in_place: bool) -> None:
    model = small_copy().eval()
    if in_place:
        model.compile()
    wrapped = model if in_place else torch.compile(model)
    with pytest.raises(ValueError, match=r"compiled by torch\.compile"):
        effkernels.explain(wrapped, images())


def test_fallbacks_still_warn(fast: None) -> None:
    said = "pointwise_conv_bn_act: not on the cuda backend: it has no kernel for this op"
    with pytest.warns(effkernels.FallbackWarning, match=said):
        effkernels.explain(small_copy().eval(), images())
