"""uint8 images, normalised by the stem: the same results as for images that were normalised before."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effkernels
from effkernels import EfficientNet
from effkernels.models import CONFIGS
from effkernels.models.efficientnet import EfficientNetFeatures
from effkernels.preprocessing import INCEPTION_MEAN, INCEPTION_STD
from networks import small_copy, tiny
from randomise import randomise
from requirements import needs_cpu_kernels
from specs.tolerance import assert_within_eager

BACKENDS = ["torch", pytest.param("cpu", marks=needs_cpu_kernels)]


def pixels(*shape: int) -> Tensor:
    return torch.randint(256, shape or (2, 3, 45, 38), dtype=torch.uint8)


def normalised(model: Any, x: Tensor) -> Tensor:
    """As ``Preprocessing`` does it."""
    mean, std = (
        torch.tensor(values, dtype=torch.float64)[:, None, None]
        for values in (model.preprocessing.mean, model.preprocessing.std)
    )
    return ((x.double() / 255 - mean) / std).to(model.stem.conv.weight.dtype)


def assert_same(model: nn.Module, x: Tensor, run: Callable[..., Any] | None = None) -> None:
    """``run``, or else the model, gives for ``x`` what the model gives for the normalised images."""
    theirs = model(normalised(model, x))
    ours = model(x) if run is None else run(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def shared() -> EfficientNet:
    """A model that tests must not change."""
    return small_copy().eval().requires_grad_(False)


@pytest.fixture
def model(shared: EfficientNet) -> EfficientNet:
    return copy.deepcopy(shared)


def test_preprocessing_normalises_like_this(shared: EfficientNet) -> None:
    image_module = pytest.importorskip("PIL.Image")
    x = pixels(1, 3, 64, 64)
    picture = image_module.fromarray(x[0].permute(1, 2, 0).contiguous().numpy())
    whole = replace(shared.preprocessing, size=64, crop_fraction=1.0)
    torch.testing.assert_close(whole(picture)[None], normalised(shared, x))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "sliced"])
def test_logits_and_features(shared: EfficientNet, backend: str, layout: str) -> None:
    x = pixels(2, 3, 50, 47)[:, :, 5:, 9:] if layout == "sliced" else pixels()
    if layout == "nhwc":
        x = x.contiguous(memory_format=torch.channels_last)
    with effkernels.use_backend(backend):
        assert_same(shared, x)
        theirs = shared.forward_features(normalised(shared, x))
        torch.testing.assert_close(shared.forward_features(x), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_each_backend_pads_alike(padding: str) -> None:
    assert_same(small_copy(padding=padding).eval(), pixels(1, 3, 33, 31))


@needs_cpu_kernels
def test_images_in_chunks(shared: EfficientNet) -> None:
    # As many images as need several chunks where they run as one call.
    x = pixels(5, 3, 480, 480)
    one_by_one = torch.cat([shared(image[None]) for image in x])
    torch.testing.assert_close(shared(x), one_by_one, rtol=1e-4, atol=1e-5)


def test_a_feature_extractor() -> None:
    made = EfficientNetFeatures(CONFIGS["efficientnet_b0"], out_indices=(0, 2))
    model = randomise(made).eval().requires_grad_(False)
    x = pixels()
    for ours, theirs in zip(model(x), model(normalised(model, x)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(dtype: torch.dtype) -> None:
    model, x = small_copy(num_classes=1000).eval().requires_grad_(False).to(dtype), pixels()
    with effkernels.use_backend("torch"):
        eager = model(normalised(model, x))
    precise = copy.deepcopy(model).double()
    assert_within_eager(model(x), eager, precise(normalised(precise, x)))


def test_64_bits(model: EfficientNet) -> None:
    # Mean and standard deviation are float32.
    model, x = model.double(), pixels()
    torch.testing.assert_close(model(x), model(normalised(model, x)), rtol=1e-6, atol=1e-6)


def test_autocast() -> None:
    model, x = small_copy(num_classes=1000).eval().requires_grad_(False), pixels()
    with torch.autocast("cpu", torch.bfloat16):
        ours = model(x)
        with effkernels.use_backend("torch"):
            eager = model(normalised(model, x))
    precise = copy.deepcopy(model).double()
    assert_within_eager(ours, eager, precise(normalised(precise, x)))


def test_no_images(shared: EfficientNet) -> None:
    assert shared(pixels(0, 3, 32, 32)).shape == (0, 10)


def test_training(model: EfficientNet) -> None:
    model.train().requires_grad_()
    twin, x = copy.deepcopy(model), pixels(8, 3, 40, 40)
    logits = []
    for trained, images in ((model, x), (twin, normalised(model, x))):
        torch.manual_seed(0)
        logits.append(trained(images))
        logits[-1].square().sum().backward()
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-3)
    running_means = [m.stem.bn.running_mean for m in (model, twin)]
    torch.testing.assert_close(*running_means)
    gradients = [m.classifier.weight.grad for m in (model, twin)]
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-3)


def test_gradients_in_eval_mode(model: EfficientNet) -> None:
    model.requires_grad_()
    x, found = pixels(), []
    for images in (x, normalised(model, x)):
        model.zero_grad()
        model(images).square().sum().backward()
        found.append(model.stem.conv.weight.grad.clone())
    assert found[0].abs().max() > 0
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_gradients_after_inference_mode(model: EfficientNet) -> None:
    # Tensors cached by the first call must not be inference tensors, which no backward pass may save.
    model.preprocessing = replace(model.preprocessing, mean=torch.rand(3).tolist())
    with torch.inference_mode():
        model(pixels())
    model.requires_grad_()(pixels()).sum().backward()
    assert model.stem.conv.weight.grad is not None


def test_hooks_see_normalised_images(model: EfficientNet) -> None:
    seen = []
    model.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    x = pixels()
    assert_same(model, x)
    (ours,), (theirs,) = seen
    torch.testing.assert_close(ours, theirs)
    handle = model.stem.conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    assert_same(model, x)
    assert [inputs[0].dtype for inputs in seen] == [torch.float32] * 6
    handle.remove()


def test_a_hook_for_all_modules_sees_one_input(shared: EfficientNet) -> None:
    seen = []
    handle = nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: seen.append(inputs) if module is shared.stem else None
    )
    try:
        shared(pixels())
    finally:
        handle.remove()
    assert [[t.dtype for t in inputs] for inputs in seen] == [[torch.float32]]


def test_another_stem(model: EfficientNet) -> None:
    model.stem.conv = nn.Sequential(model.stem.conv)
    model.stem.conv.weight = model.stem.conv[0].weight
    assert_same(model, pixels())


def test_changed_preprocessing_takes_effect(model: EfficientNet) -> None:
    x = pixels()
    before = model(x)
    model.preprocessing = replace(model.preprocessing, mean=INCEPTION_MEAN, std=INCEPTION_STD)
    assert (model(x) - before).abs().max() > 1e-3
    assert_same(model, x)


def test_nothing_is_added_to_the_model(model: EfficientNet) -> None:
    state, attributes = set(model.state_dict()), set(vars(model))
    tensors = len([*model.buffers(), *model.parameters()])
    model(pixels())
    model.forward_features(pixels())
    assert set(model.state_dict()) == state
    assert set(vars(model)) == attributes
    assert len([*model.buffers(), *model.parameters()]) == tensors


def test_copies(model: EfficientNet) -> None:
    x = pixels()
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.fuse()):
        torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-5)


def test_moving(model: EfficientNet) -> None:
    model(pixels())
    assert model.to("meta")(pixels().to("meta")).shape == (2, 10)


def test_compiles() -> None:
    torch._dynamo.reset()
    model = tiny(stages=3)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_same(model, pixels(), compiled)
    model.preprocessing = replace(model.preprocessing, mean=INCEPTION_MEAN)
    assert_same(model, pixels(), compiled)


def test_two_in_one_compiled_function() -> None:
    torch._dynamo.reset()
    config = CONFIGS["efficientnet_b0"]
    first, second = (EfficientNetFeatures(config, out_indices=(0,)).eval() for _ in "ab")
    both = torch.compile(lambda x: first(x) + second(x), fullgraph=True, backend="eager")
    x = pixels()
    torch.testing.assert_close(both(x), first(x) + second(x), rtol=1e-4, atol=1e-5)


def test_exports(shared: EfficientNet) -> None:
    x = pixels()
    exported = torch.export.export(shared, (x,))
    assert set(exported.state_dict) == set(shared.state_dict())
    assert_same(shared, x, exported.module())


@needs_cpu_kernels
def test_the_stem_reads_one_byte_per_value(model: EfficientNet) -> None:
    x = pixels()
    whole = effkernels.explain(model, x)
    assert (whole.calls, whole.dtype) == (1, torch.uint8)
    assert all(row.call is not None for row in whole.rows)
    floats = effkernels.explain(model, normalised(model, x))
    statistics = 2 * 3 * 4
    assert whole.rows[0].bytes == floats.rows[0].bytes - 3 * x.nbytes + statistics
    assert whole.flops == floats.flops
    model.stages[1].register_forward_hook(lambda *_: None)
    layers = effkernels.explain(model, x)
    assert layers.rows[0].op == "conv_bn_act"
    assert layers.rows[0].bytes == whole.rows[0].bytes


def test_normalisation_in_pytorch_is_counted_too(model: EfficientNet) -> None:
    model.stem.register_forward_hook(lambda *_: None)
    x = pixels()
    row = effkernels.explain(model, x).rows[0]
    assert (row.dtype, row.backend) == (torch.uint8, "torch")
    # Conversion to float, minus the mean, over the deviation.
    assert row.bytes == pytest.approx(x.nbytes * (1 + 4 + 2 * 8), abs=100)


PROBLEMS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "no preprocessing": ("model.preprocessing says, which is NoneType: set it", {}, None),
    "another number of channels": (
        "for 3 channels, and the model has in_channels=4",
        {"in_channels": 4},
        "as it is",
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_models_without_usable_preprocessing(problem: str) -> None:
    message, options, preprocessing = PROBLEMS[problem]
    model = small_copy(**options).eval()
    if preprocessing is None:
        model.preprocessing = preprocessing
    for call in (model, model.forward_features):
        with pytest.raises(ValueError, match=message):
            call(pixels(1, model.in_channels, 32, 32))
    model(torch.randn(1, model.in_channels, 32, 32))
