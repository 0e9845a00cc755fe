"""Compares our network with its twin in plain PyTorch after the same surgery, in both modes and on each backend."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import effkernels
import twin
from effkernels.models import CONFIGS, EfficientNet, EfficientNetConfig, StageConfig, build
from effkernels.models.scaling import Coefficients
from randomise import randomise
from surgery import Surgery, same_surgery

CPU_KERNELS = effkernels.backends()["cpu"].available
# Every kind of block: without and with expansion, with a residual, with stride 2, with the larger kernel.
STAGES = (
    StageConfig(1, 3, 1, 1, 8),
    StageConfig(2, 3, 2, 2, 8),
    StageConfig(1, 5, 2, 2, 16),
)


def _config(name: str, **options: Any) -> EfficientNetConfig:
    rates = {"dropout": 0.3, "drop_path": 0.5, "stem_channels": 8, "head_channels": 24}
    coefficients = Coefficients(1.0, 1.0, 32, 0.2)
    return replace(CONFIGS[name], coefficients=coefficients, stages=STAGES, **rates, **options)


CONFIGURATIONS = {
    "silu": _config("efficientnet_b0"),
    "relu6, same": replace(
        _config("efficientnet_lite0", padding="same"),
        stages=tuple(replace(stage, se_ratio=0.0) for stage in STAGES),
    ),
}


@functools.cache
def pair(configuration: str) -> tuple[EfficientNet, twin.Network]:
    """Our network and its twin, with the same weights. Copy them before changing them."""
    config = CONFIGURATIONS[configuration]
    with torch.random.fork_rng():
        torch.manual_seed(5)
        ours = randomise(build(config, num_classes=7), size=32)
        theirs = twin.Network(config, 7)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


Outcome = tuple[Tensor, dict[str, Tensor | None]] | str


def outcome(model: nn.Module, x: Tensor, gradients: bool) -> Outcome:
    """Logits and gradients of the parameters, or the error."""
    model.zero_grad()
    torch.manual_seed(11)  # so that drop path drops the same samples
    try:
        with torch.set_grad_enabled(gradients):
            y = model(x)
            weights = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)
            if y.requires_grad:
                (y * weights).sum().backward()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return y.detach(), {name: p.grad for name, p in model.named_parameters()}


def check_same(ours: Outcome, theirs: Outcome, dtype: torch.dtype, what: str) -> None:
    if isinstance(ours, str) or isinstance(theirs, str):
        assert isinstance(ours, str) == isinstance(theirs, str), f"{what}: {ours}, want {theirs}"
        return
    check_close(ours[0], theirs[0], dtype, f"logits, {what}")
    assert ours[1].keys() == theirs[1].keys()
    # Where a gradient should be 0, only rounding errors remain, so errors are compared with the largest gradient.
    scale = max((g.abs().max().item() for g in theirs[1].values() if g is not None), default=0.0)
    for name, gradient in ours[1].items():
        want = theirs[1][name]
        assert (gradient is None) == (want is None), f"gradient of {name}, {what}"
        if gradient is not None and want is not None:
            check_close(gradient, want, dtype, f"gradient of {name}, {what}", scale)


def check_close(
    ours: Tensor, theirs: Tensor, dtype: torch.dtype, what: str, scale: float = 0.0
) -> None:
    """A missed change alters a result by several percent, rounding by less than 1e-5 in float32."""
    bound = 1e-9 if dtype == torch.float64 else 1e-3
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)}, want {tuple(theirs.shape)}"
    scale = max(scale, theirs.abs().max().item() if theirs.numel() else 0.0, 1e-6)
    torch.testing.assert_close(
        ours, theirs, rtol=0, atol=bound * scale, equal_nan=True, msg=lambda m: f"{what}: {m}"
    )


def check(
    configuration: str,
    surgery: list[Surgery] | Callable[[nn.Module], None],
    *,
    one_op: bool = True,
    look_between: bool = True,
    one_backend: bool = False,
) -> None:
    """Ours computes what the twin computes after the same surgery. ``one_op``: whether it may run as one op.

    ``one_backend``: only by the CPU kernels, where they are built, because each compilation takes a second.
    """
    if not isinstance(surgery, list):
        surgery = [Surgery("call", "", surgery)]
    backends = [("torch", torch.float64), *([("cpu", torch.float32)] if CPU_KERNELS else [])]
    shortcut = nullcontext() if one_op else _without_one_op()
    for backend, dtype in backends[-1:] if one_backend else backends:
        with effkernels.use_backend(backend), shortcut:
            _check(configuration, surgery, backend, dtype, look_between)


def _without_one_op() -> Any:
    return mock.patch("effkernels.models.inference.run", return_value=None)


def _check(
    configuration: str, surgery: list[Surgery], backend: str, dtype: torch.dtype, between: bool
) -> None:
    ours, theirs = (copy.deepcopy(model).to(dtype).eval() for model in pair(configuration))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3), dtype=dtype)

    def look() -> None:
        if between:
            for _ in range(3):  # a plan is made, bound and used
                outcome(ours, x, gradients=False)
                outcome(theirs, x, gradients=False)

    look()
    with torch.no_grad():
        ours.forward_features(x)  # a plan is there before anything changes
    with same_surgery(surgery, ours, theirs, look) as late:
        if any(one.how == "of 6 channels" for one in surgery):
            x = torch.cat([x, x.flip(1)], dim=1)
        _check_maps(ours, x, dtype)
        for training in (False, True):
            for gradients in (False, True):
                for model in (ours, theirs):
                    model.train(training)
                    for one in late:
                        one.fails(model, ExitStack())  # does nothing if the module is gone
                what = f"{backend}, {'train' if training else 'eval'}, gradients: {gradients}"
                found = outcome(ours, x, gradients), outcome(theirs, x, gradients)
                check_same(*found, dtype, what)
                if any(isinstance(one, str) for one in found):
                    return  # both may have been changed differently before they failed
        _check_buffers(ours, theirs, dtype)
        # A fused copy has an Identity in the place of each BatchNorm: then another Identity is another network.
        if not any((one.kind, one.path) == ("patch a class", "Identity") for one in surgery):
            _check_fused(ours, theirs, x, dtype)


def _check_maps(ours: EfficientNet, x: Tensor, dtype: torch.dtype) -> None:
    """The last map by its plan is what the layers make, after them a plan that is bound as well."""

    def made(how: Callable[[Tensor], Tensor]) -> Tensor | str:
        torch.manual_seed(11)
        before = [buffer.clone() for buffer in ours.buffers()]
        try:
            with torch.no_grad():
                return how(x)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            for buffer, values in zip(ours.buffers(), before, strict=True):
                buffer.data.copy_(values)

    want = made(ours._last_map)
    for _ in range(3):
        found = made(ours.forward_features)
        if isinstance(found, str) or isinstance(want, str):
            assert isinstance(found, str) == isinstance(want, str), f"map: {found}, want {want}"
            return
        check_close(found, want, dtype, "map")


def _check_buffers(ours: nn.Module, theirs: nn.Module, dtype: torch.dtype) -> None:
    buffers = dict(theirs.named_buffers())
    assert dict(ours.named_buffers()).keys() == buffers.keys()
    for name, buffer in ours.named_buffers():
        check_close(buffer.to(dtype), buffers[name].to(dtype), dtype, name)


def _check_fused(ours: EfficientNet, theirs: nn.Module, x: Tensor, dtype: torch.dtype) -> None:
    try:
        copied = copy.deepcopy(theirs).eval()
    except RuntimeError:  # PyTorch cannot copy a module whose weight is computed
        return
    fused, whole = outcome(ours.fuse(), x, False), outcome(copied, x, False)
    if not isinstance(fused, str) and not isinstance(whole, str):
        fused, whole = (fused[0], {}), (whole[0], {})  # fused models have other parameters
    check_same(fused, whole, dtype, "fused copy")
