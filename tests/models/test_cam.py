"""Class activation maps: exact by the logit they add up to, and equal to Grad-CAM's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from effkernels.models import EfficientNet
from networks import images, small_copy
from oracles import oracle

# float64 runs in PyTorch.
pytestmark = pytest.mark.filterwarnings("ignore::effkernels.FallbackWarning")


@pytest.fixture
def model() -> EfficientNet:
    return small_copy().double().eval()


def scaled(maps: Tensor) -> Tensor:
    """What Grad-CAM does to a map before it is resized: ReLU, then from 0 to 1."""
    maps = maps.relu()
    low = maps.amin((1, 2), keepdim=True)
    return (maps - low) / (1e-7 + (maps - low).amax((1, 2), keepdim=True))


def grad_cam(model: EfficientNet, x: Tensor, chosen: Tensor) -> Tensor:
    """Selvaraju et al. 2017 (arXiv 1610.02391), equations 1 and 2 before the ReLU, by autograd."""
    with torch.enable_grad():
        features = model.forward_features(x).detach().requires_grad_()
        logits = model.forward_head(features)[torch.arange(len(x)), chosen]
        (gradient,) = torch.autograd.grad(logits.sum(), features)
    return (gradient.mean((2, 3), keepdim=True) * features.detach()).sum(1)


def test_a_map_adds_up_to_the_logit(model: EfficientNet) -> None:
    x = images(3, 3, 64, 96)
    maps = model.cam(x, 4)
    assert maps.shape == (3, 2, 3)
    torch.testing.assert_close(maps.mean((1, 2)) + model.classifier.bias[4], model(x)[:, 4])


@pytest.mark.parametrize("classes", [[0, 9, 3], [5, 5, 5]])
def test_a_map_is_grad_cams(model: EfficientNet, classes: list[int]) -> None:
    x, chosen = images(3, 3, 64, 96), torch.tensor(classes)
    ours = model.cam(x, chosen)
    theirs = 6 * grad_cam(model, x, chosen)  # of the 6 places of a map
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(scaled(ours), scaled(theirs))
    assert ours.std() > 1e-3


def test_the_grad_cam_package_finds_the_same() -> None:
    grad_cam_package = oracle("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    # Modules of a model that records no gradient are one call: the package hooks the layer and needs them.
    model, x = small_copy().eval(), torch.randn(2, 3, 64, 96)
    with grad_cam_package.GradCAM(model, [model.head]) as theirs:
        targets = [ClassifierOutputTarget(index) for index in (7, 2)]
        theirs(x, targets)
        # Before the resize, which is OpenCV's.
        activations = theirs.activations_and_grads.activations[0].numpy()
        gradients = theirs.activations_and_grads.gradients[0].numpy()
        raw = theirs.get_cam_image(x, model.head, targets, activations, gradients, False)
    want = scaled(torch.from_numpy(raw))
    with torch.no_grad():
        ours = scaled(model.cam(x, torch.tensor([7, 2])))
    # The package adds 1e-7 to maxima of maps that are 6 times smaller.
    torch.testing.assert_close(ours, want, rtol=1e-4, atol=1e-5)


def test_without_a_class_it_is_the_most_likely_one(model: EfficientNet) -> None:
    x = images(3, 3, 64, 64)
    best = model(x).argmax(1)
    torch.testing.assert_close(model.cam(x), model.cam(x, best))


def test_gradients_flow_and_16_bits_are_summed_in_32(model: EfficientNet) -> None:
    x = images(2, 3, 64, 64).requires_grad_()
    model.cam(x, 1).sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    half = small_copy().bfloat16().eval()
    with torch.inference_mode():
        assert half.cam(images(1, 3, 64, 64).bfloat16(), 0).dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (10, ValueError, "class_index must lie in 0 to 9, got 10"),
        (-1, ValueError, "class_index must lie in 0 to 9, got -1"),
        (torch.tensor([0, 12]), ValueError, "0 to 9, got 0 to 12"),
        (torch.tensor([0, 1, 2]), ValueError, r"one for each of 2 images, got shape \(3,\)"),
        (1.0, TypeError, "an int or a tensor of integers, got 1.0"),
        (True, TypeError, "an int or a tensor of integers, got True"),
        (torch.tensor([0.0, 1.0]), TypeError, "an int or a tensor of integers, got torch.float32"),
    ],
)
def test_classes_that_do_not_exist(
    model: EfficientNet, given: object, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        model.cam(images(2, 3, 32, 32), given)  # type: ignore[arg-type]


@pytest.mark.parametrize("classifier", [nn.Identity(), nn.Sequential()])
def test_a_classifier_that_is_not_linear(model: EfficientNet, classifier: nn.Module) -> None:
    model.classifier = classifier
    with pytest.raises(ValueError, match="need a linear classifier"):
        model.cam(images(1, 3, 32, 32), 0)
