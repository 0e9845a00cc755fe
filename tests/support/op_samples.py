"""Arguments for every op: what its contract is tested with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effkernels import ops


@dataclass(frozen=True)
class Sample:
    """One call: of the front (``front(**arguments)``) and, flat, of ``torch.ops.effkernels.<name>``."""

    name: str
    label: str
    front: Callable[[], Any]
    flat: tuple[Any, ...]


def batch_norm(channels: int, dtype: torch.dtype, eps: float = 1e-3) -> ops.BatchNorm:
    """Random vectors, none of them 0 or 1, in float32 beside 16-bit images."""
    dtype = torch.float64 if dtype == torch.float64 else torch.float32
    make = torch.rand(4, channels, dtype=dtype)
    return ops.BatchNorm(make[0] + 0.5, make[1] - 0.5, make[2] - 0.5, make[3] + 0.2, eps)


def images(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def _window(name: str, dtype: torch.dtype, label: str, channels: int, h: int, w: int, **o: Any):
    depthwise = name.startswith("depthwise")
    k, stride, padding, dilation = o["k"], o["stride"], o["padding"], o.get("dilation", (1, 1))
    x = images(2, channels, h, w, dtype=dtype)
    image_norm = {}
    if o.get("uint8"):
        x = torch.randint(256, x.shape, dtype=torch.uint8)
    if o.get("normalise"):
        mean, std = torch.rand(2, channels) * 9 + 100
        image_norm = {"mean": mean, "std": std}
    c_out = channels if depthwise else 5
    weight = images(c_out, 1 if depthwise else channels, *k, dtype=dtype)
    bn = batch_norm(c_out, dtype) if o.get("bn", True) else None
    bias = None if bn else torch.randn(c_out, dtype=dtype)
    activation = o.get("activation", "silu")
    flat_bn = (None, None, None, None, 0.0) if bn is None else tuple(bn)
    window = {"stride": stride, "padding": padding, "dilation": dilation}
    return Sample(
        name,
        label,
        lambda: getattr(ops, name)(
            x, weight, bias, bn, activation=activation, **window, **image_norm
        ),
        (x, weight, bias, *flat_bn, list(stride), list(padding), list(dilation), activation)
        + (() if depthwise else (image_norm.get("mean"), image_norm.get("std"))),
    )


_WINDOWS: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "3x3": (8, 7, 6, {"k": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1)}),
    "5x5/2-same": (3, 8, 10, {"k": (5, 5), "stride": (2, 2), "padding": (1, 2, 1, 2)}),
    "3x3/2-odd-bias": (
        9,
        5,
        7,
        {
            "k": (3, 3),
            "stride": (2, 2),
            "padding": (0, 1, 1, 0),
            "bn": False,
            "activation": "relu6",
        },
    ),
    "one-pixel": (4, 1, 1, {"k": (5, 5), "stride": (2, 1), "padding": (2, 2, 2, 2)}),
    "ragged": (
        1,
        6,
        9,
        {
            "k": (2, 4),
            "stride": (3, 1),
            "padding": (0, 3, 5, 1),
            "dilation": (2, 1),
            "activation": "hardswish",
        },
    ),
}


_STEM = {"k": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1)}
# Of dense convolutions alone.
_IMAGES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "uint8-normalised": (3, 7, 6, _STEM | {"uint8": True, "normalise": True}),
    "normalised": (3, 5, 8, _STEM | {"normalise": True}),
}


def _pointwise(dtype: torch.dtype, label: str, *, gated: bool, added: bool) -> Sample:
    x, weight = images(2, 7, 3, 5, dtype=dtype), images(4, 7, dtype=dtype)
    bn = batch_norm(4, dtype)
    accumulate = torch.float64 if dtype == torch.float64 else torch.float32
    gate = torch.rand(2, 7, dtype=accumulate) if gated else None
    residual = images(2, 4, 3, 5, dtype=dtype) if added else None
    act = "identity" if added else "silu"
    return Sample(
        "pointwise_conv_bn_act",
        label,
        lambda: ops.pointwise_conv_bn_act(
            x, weight[:, :, None, None], bn=bn, gate=gate, residual=residual, activation=act
        ),
        (x, weight, None, *bn, gate, residual, act),
    )


def _pointwise_mean(dtype: torch.dtype, name: str) -> Sample:
    x, weight, bn = images(2, 7, 3, 5, dtype=dtype), images(4, 7, dtype=dtype), batch_norm(4, dtype)
    front = getattr(ops, name)
    return Sample(name, "", lambda: front(x, weight, bn=bn), (x, weight, None, *bn, "silu"))


def gate_weights(channels: int, squeezed: int, dtype: torch.dtype) -> ops.Gate:
    return ops.Gate(
        images(squeezed, channels, dtype=dtype),
        images(squeezed, dtype=dtype),
        images(channels, squeezed, dtype=dtype),
        images(channels, dtype=dtype),
    )


def _squeeze(dtype: torch.dtype) -> list[Sample]:
    accumulate = torch.float64 if dtype == torch.float64 else torch.float32
    pooled, x = torch.randn(3, 6, dtype=accumulate), images(3, 6, 4, 5, dtype=dtype)
    weights = gate_weights(6, 2, dtype)
    gate, layer = ops.squeeze_excite_gate, ops.squeeze_excite
    return [
        Sample(
            "squeeze_excite_gate", "", lambda: gate(pooled, *weights), (pooled, *weights, "silu")
        ),
        Sample("squeeze_excite", "", lambda: layer(x, *weights), (x, *weights, "silu")),
    ]


def _mbconv(dtype: torch.dtype, label: str, *, expand: bool, gated: bool, stride: int) -> Sample:
    wide = 12 if expand else 4
    x = images(2, 4, 6, 5, dtype=dtype)
    first = ops.Conv(images(12, 4, 1, 1, dtype=dtype), None, batch_norm(12, dtype))
    deep = ops.Conv(images(wide, 1, 3, 3, dtype=dtype), None, batch_norm(wide, dtype))
    last = ops.Conv(images(4, wide, 1, 1, dtype=dtype), None, batch_norm(4, dtype))
    gate = gate_weights(wide, 2, dtype) if gated else None
    none = (None,) * 6 + (0.0,)
    flat_first = (first.weight[:, :, 0, 0], None, *first.bn) if expand else none  # type: ignore[misc]
    residual = stride == 1
    return Sample(
        "mbconv",
        label,
        lambda: ops.mbconv(
            x,
            first if expand else None,
            deep,
            gate,
            last,
            stride=stride,
            padding=1,
            residual=residual,
        ),
        (
            x,
            *flat_first,
            *(deep.weight, None, *deep.bn),  # type: ignore[misc]
            *(gate or (None,) * 4),
            *(last.weight[:, :, 0, 0], None, *last.bn),  # type: ignore[misc]
            [stride, stride],
            [1, 1, 1, 1],
            residual,
            "silu",
        ),
    )


def _expand_depthwise(
    name: str, dtype: torch.dtype, label: str, kernel: int, padding: list[int], *, stride: int
) -> Sample:
    # 8 input channels at least, and 16 bits, for a kernel to take it; see `effkernels._backends.cuda`.
    c_in, wide = 8, 20
    x, activation = images(2, c_in, 6, 7, dtype=dtype), "silu" if stride == 1 else "relu6"
    first = ops.Conv(images(wide, c_in, 1, 1, dtype=dtype), None, batch_norm(wide, dtype))
    deep = ops.Conv(images(wide, 1, kernel, kernel, dtype=dtype), torch.randn(wide, dtype=dtype))
    front = getattr(ops, name)
    window = {"stride": stride, "padding": padding}
    return Sample(
        name,
        label,
        lambda: front(x, first, deep, **window, activation=activation),
        (
            *(x, first.weight[:, :, 0, 0], None, *first.bn),  # type: ignore[misc]
            *(deep.weight, deep.bias, *(None,) * 4, 0.0),
            *([stride, stride], padding, activation),
        ),
    )


def samples(dtype: torch.dtype) -> list[Sample]:
    """Every op, over the corners of its contract."""
    found = [
        _window(name, dtype, label, c, h, w, **options)
        for name in ("depthwise_conv_bn_act", "depthwise_conv_bn_act_pool", "conv_bn_act")
        for label, (c, h, w, options) in _WINDOWS.items()
    ]
    found += [
        _window("conv_bn_act", dtype, label, c, h, w, **options)
        for label, (c, h, w, options) in _IMAGES.items()
    ]
    found += [
        _pointwise(dtype, "plain", gated=False, added=False),
        _pointwise(dtype, "gate", gated=True, added=False),
        _pointwise(dtype, "gate-residual", gated=True, added=True),
        *(_pointwise_mean(dtype, f"pointwise_conv_bn_act_{also}") for also in ("pool", "squeeze")),
        *_squeeze(dtype),
        *(
            _expand_depthwise(f"expand_depthwise_conv_bn_act{pool}", dtype, *case, stride=stride)
            for pool in ("", "_pool")
            for stride, *case in ((1, "3x3", 3, [1] * 4), (2, "5x5/2-same", 5, [2, 2, 1, 2]))
        ),
        _mbconv(dtype, "full", expand=True, gated=True, stride=1),
        _mbconv(dtype, "no-expand", expand=False, gated=True, stride=1),
        _mbconv(dtype, "stride-2-no-gate", expand=True, gated=False, stride=2),
    ]
    return found


def labels() -> list[str]:
    """Names of the samples, in order."""
    return [f"{s.name}-{s.label}".rstrip("-") for s in samples(torch.float32)]


def labels_of_parts() -> list[str]:
    """Those of the ops that are not composed of others."""
    return [label for label in labels() if not label.startswith(("mbconv", "expand_depthwise"))]
