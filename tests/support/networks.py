"""Small, fast networks with every kind of block."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import effkernels
from effkernels.models import CONFIGS, EfficientNet, EfficientNetFeatures, build, inference
from effkernels.models.scaling import Coefficients
from effkernels.ops._steps import Network
from randomise import randomise
from specs.oracle_convolutions import OracleConvolutions
from specs.tolerance import assert_within_eager


def small(name: str = "efficientnet_b0", *, depth: float = 1.0, **options: object) -> EfficientNet:
    """The network with a quarter of the channels, because PyTorch's float64 depthwise convolution is slow.

    With half of the ``depth`` there still is a residual connection of each kind: with an expansion and without.
    """
    config = CONFIGS[name]
    config = replace(config, coefficients=Coefficients(0.25, depth, 64, 0.2), stem_channels=32)
    return randomise(build(config, **{"num_classes": 10, **options}))


@functools.cache
def _drawn_once(name: str, depth: float, options: tuple[tuple[str, object], ...]) -> EfficientNet:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return small(name, depth=depth, **dict(options))


def small_copy(
    name: str = "efficientnet_b0", *, depth: float = 0.5, **options: object
) -> EfficientNet:
    """A copy of a :func:`small` network whose weights are drawn once per process, always the same."""
    return copy.deepcopy(_drawn_once(name, depth, tuple(options.items())))


def tiny(name: str = "efficientnet_b0", *, stages: int = 7, **options: object) -> EfficientNet:
    """One block per stage, for tests in which a kernel takes a second: has every kind of block.

    Three ``stages`` are enough where each block takes a second to trace: without and with an expansion, both kernels.
    """
    config = replace(
        CONFIGS[name],
        coefficients=Coefficients(0.25, 0.25, 64, 0.2),
        stages=CONFIGS[name].stages[:stages],
        stem_channels=8,
    )
    return randomise(build(config, **{"num_classes": 10, **options})).eval().requires_grad_(False)


def model_on_gpu(name: str, dtype: torch.dtype = torch.bfloat16) -> EfficientNet:
    """A named model at its full size, in eval mode, on the current GPU."""
    with effkernels.use_backend("torch"):
        model = randomise(effkernels.create_model(name)).eval().requires_grad_(False)
    return model.to(dtype).cuda()


def backbone_of(model: EfficientNet, **options: Any) -> EfficientNetFeatures:
    """What makes the maps of a network, with its weights, in eval mode."""
    features = EfficientNetFeatures(model.config, **options).eval().requires_grad_(False)
    features.load_state_dict(model.state_dict(), strict=False)
    return features


def network_of(
    model: EfficientNet | EfficientNetFeatures, x: Tensor, *, maps: bool = False
) -> tuple[Network, list[Tensor]]:
    """The steps of a model's plan for images like ``x``, and the tensors that they refer to.

    ``maps``: of what makes feature maps, a classifier's last one among them.
    """
    with torch.no_grad():
        if maps and isinstance(model, EfficientNet):
            model.forward_features(x)
        else:
            model(x)
    plan = (inference._map_plans if maps else inference._plans)[model]
    tensors = plan.tensors()
    assert tensors is not None
    norm = model._pixel_norm(x)
    network = plan.network(x, tensors, bool(norm))
    assert isinstance(network, Network)
    return network, tensors + norm


def run_network(model: nn.Module, x: Tensor) -> tuple[Tensor, list[str]]:
    """The result of ``model`` for ``x``, and "op on backend" for each call."""
    explained = effkernels.explain(model, x)
    with torch.no_grad():
        return model(x), [f"{row.op} on {row.backend}" for row in explained.rows]


def assert_logits(actual: Tensor, eager: Tensor, model: EfficientNet, x: Tensor) -> None:
    """Logits obey the tolerance rule, with the term that an op alone has for its sums: here the classifier's.

    For GPU backends, whose float32 products add up features 16 at a time, one after the other, and then these sums.

    Args:
        actual, eager: ours and plain PyTorch's logits for `x`.
        model: the network; not changed.
        x: its images, in the type in which it computed, or uint8.
    """
    precise = copy.deepcopy(model).double()
    features: list[Tensor] = []
    precise.classifier.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    with torch.no_grad(), OracleConvolutions():
        exact = precise(x.double() if x.is_floating_point() else x)
    sums = F.linear(features[0].abs(), precise.classifier.weight.abs()).amax().item()
    depth = 16 + features[0].shape[1] // 16
    assert_within_eager(actual.cpu(), eager.cpu(), exact.cpu(), magnitude=sums, depth=depth)


def images(*shape: int) -> Tensor:
    """Random images in float64."""
    return torch.randn(*shape, dtype=torch.float64)


def unfused(model: nn.Module, x: Tensor) -> Tensor:
    """The same model through its inner modules: a hook for all modules prevents fused ops."""
    calls = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: calls.append(type(m)))
    try:
        y = model(x)
    finally:
        handle.remove()
    assert nn.Conv2d in calls or any(issubclass(t, nn.Conv2d) for t in calls)
    return y
