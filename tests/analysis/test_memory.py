"""The memory estimates compared with the live and the saved tensors of real networks on the meta
device.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from archetypes import ARCHETYPES, BOTTLENECK
from effkernels.analysis.cost import ByExecution
from effkernels.models import CONFIGS, build
from effkernels.models.baselines import RESNET50
from effkernels.scaling import inference_memory, model_cost, saved_bytes, training_memory

# ReLU keeps its result, which is the next convolution's input: the estimates count it twice.
# With so narrow blocks the peak is at the max-pool, whose indices have eight bytes in any dtype.
POOLED = replace(
    RESNET50, activation="silu", stages=(replace(RESNET50.stages[0], out_channels=32),)
)
CONFIGURATIONS = {
    **CONFIGS,
    **ARCHETYPES,
    "bottleneck": replace(BOTTLENECK, activation="silu"),
    "pooled": POOLED,
}
# B0 has the blocks of the larger ones, and so has Lite0.
NETWORKS = ["efficientnet_b0", "efficientnet_lite0", *ARCHETYPES]


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that ops return, while they are alive, and records the peak."""

    sees_effkernels_ops = True

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.alive: set[int] = set()

    def watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.alive:
            self.alive.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.forget, key, size)

    def forget(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.watch(leaf)
        return result


@contextmanager
def unfused(model: nn.Module) -> Iterator[None]:
    """Run every layer one by one: a hook on all modules prevents fused ops."""
    handle = nn.modules.module.register_module_forward_pre_hook(lambda module, inputs: None)
    try:
        yield
    finally:
        handle.remove()


def network(name: str) -> nn.Module:
    return build(CONFIGURATIONS[name], device="meta")


def images(name: str, batch_size: int) -> Tensor:
    side = CONFIGURATIONS[name].resolution
    x = torch.empty(batch_size, 3, side, side, device="meta")
    return x.contiguous(memory_format=torch.channels_last)


def vectors(model: nn.Module) -> int:
    """Bytes of one float32 value per BatchNorm channel, which the estimates leave out."""
    return sum(4 * m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in ("efficientnet_b7", *NETWORKS)),
        ("pooled", torch.bfloat16),
    ],
    ids=str,
)
def test_eager_inference(name: str, dtype: torch.dtype) -> None:
    model, x = network(name).eval().to(dtype), images(name, 2).to(dtype)
    own = {t.untyped_storage()._cdata for t in model.state_dict().values()}
    with torch.no_grad(), unfused(model), LiveBytes() as live:
        live.alive |= own  # counted apart, also where an op returns a view of it
        live.watch(x)
        model(x)
    cost = model_cost(CONFIGURATIONS[name], batch_size=2, dtype=dtype)
    estimate = inference_memory(cost).eager - cost.state_bytes
    assert 0 <= live.peak - estimate <= vectors(model)


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_for_the_backward(name: str) -> None:
    model, x = network(name).train(), images(name, 2)
    own = {t.untyped_storage()._cdata for t in model.state_dict().values()}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.dim() == 4 and storage._cdata not in own and 1 not in tensor.shape[2:]:
            saved[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = model(x)
    assert sum(s.nbytes() for s in saved.values()) == saved_bytes(
        model_cost(CONFIGURATIONS[name], batch_size=2)
    )
    del y


@pytest.mark.parametrize("name", NETWORKS)
def test_training_is_an_upper_estimate(name: str) -> None:
    """The exact bytes of a step with momentum are below the estimate, by less than a fifth."""
    model, x = network(name).train(), images(name, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=False)
    with LiveBytes() as live:
        for tensor in (x, *model.state_dict().values()):
            live.watch(tensor)
        for _ in range(2):
            model(x).sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    estimate = training_memory(model_cost(CONFIGURATIONS[name], batch_size=8), optimizer_states=1)
    assert 0.8 * estimate <= live.peak <= estimate + 16 * vectors(model)


def test_inference_of_b0_by_hand() -> None:
    """The peak is in stages.1.0, from 16 to 96 channels, from 112 to 56 pixels; at level 2 it is in
    0.0.
    """
    cost = model_cost("efficientnet_b0", batch_size=2, dtype=torch.float16)
    picture, x, e, d = 3 * 224**2, 16 * 112**2, 96 * 112**2, 96 * 56**2
    stem = 32 * 112**2
    assert inference_memory(cost) == ByExecution(
        eager=cost.state_bytes + 4 * (picture + x + 2 * e),
        level1=cost.state_bytes + 4 * (picture + x + e + d),
        level2=cost.state_bytes + 4 * (picture + stem + stem + x),
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_fusing_more_never_needs_more(name: str) -> None:
    memory = inference_memory(model_cost(name, batch_size=3))
    assert memory.eager > memory.level1 >= memory.level2 > 0


def grows(measure: Callable[..., int]) -> None:
    sizes = [measure(side) for side in (1, 7, 32, 33, 224, 225)]
    assert sizes == sorted(sizes)


def test_memory_grows_with_the_image() -> None:
    grows(lambda side: inference_memory(model_cost("efficientnet_b0", side)).level1)
    grows(lambda side: training_memory(model_cost("efficientnet_b0", side)))


def test_training_under_autocast_keeps_float32_parameters_and_casts_them() -> None:
    cost = model_cost("efficientnet_b0", batch_size=4, dtype=torch.bfloat16)
    mixed = training_memory(cost, parameter_dtype=torch.float32)
    pure = training_memory(cost)
    buffers = sum(layer.buffers for layer in cost.layers)
    # Parameters, gradients and two optimizer states take 2 bytes more each; then a bf16 copy, and
    # the buffers.
    assert mixed - pure == 2 * 4 * cost.params + 2 * cost.params + 2 * buffers


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer_states": -1}, ValueError, "optimizer_states must be at least 0, got -1"),
        ({"parameter_dtype": torch.int8}, TypeError, "parameter_dtype must be a floating-point"),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        training_memory(model_cost("efficientnet_b0"), **options)
