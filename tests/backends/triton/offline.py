"""Compiles the kernels for one architecture with the arguments that launchers pass, without a GPU.

    offline.py CAPABILITY TYPES [LABEL...]

Prints a line of JSON per kernel: label, registers, spills, shared memory, instructions, matrix instructions, and
accesses of two bytes. With labels, only kernels whose label begins with one of them are compiled.
It needs Triton's compiler and any PyTorch, and takes about a second per kernel.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from effkernels._backends.triton import (
    conv_bn_act,
    depthwise_conv_bn_act,
    elementwise,
    launch,
    pointwise_conv_bn_act,
    squeeze_excite,
    squeeze_excite_gate,
)
from effkernels.ops._window import WindowArguments
from effkernels.ops.squeeze_excite import SqueezeExciteArguments
from effkernels.ops.squeeze_excite_gate import GateArguments

_MODULES = (
    conv_bn_act,
    depthwise_conv_bn_act,
    elementwise,
    pointwise_conv_bn_act,
    squeeze_excite,
    squeeze_excite_gate,
)
_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
_TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
}
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?!NOP)\S", re.M)
# Matrix instructions by generation: mma.sync, wgmma, tcgen05.
_PRODUCTS = r"\b((?:HMMA|HGMMA|UTCHMMA|UTCQMMA|UTCOMMA|IMMA)[.\w]*)"

_launches: dict[str, tuple[Any, ASTSource, dict[str, int]]] = {}
_label = ""


def source(kernel: Any, arguments: Sequence[Any], constants: Mapping[str, Any]) -> ASTSource:
    """What Triton would compile for these arguments."""
    signature: dict[str, str] = dict.fromkeys(constants, "constexpr")
    constexprs = dict(constants)
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for i, (name, value) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
        if value is None or (isinstance(value, int) and value == 1):
            signature[name], constexprs[name] = "constexpr", value
            continue
        if isinstance(value, Tensor):
            signature[name] = _TYPES[value.dtype]
            divisible = value.data_ptr() % 16 == 0
        elif isinstance(value, float):
            signature[name], divisible = "fp32", False
        else:
            signature[name], divisible = "i32", value % 16 == 0
        if divisible:
            attributes[(i,)] = [["tt.divisibility", 16]]
    ordered = {name: signature[name] for name in kernel.arg_names}
    return ASTSource(kernel, ordered, constexprs, attributes)


def record(
    kernel: Any,
    programs: int,
    arguments: Sequence[Any],
    constants: Mapping[str, Any],
    *,
    warps: int,
    stages: int = 1,
) -> None:
    """In place of `launch`."""
    assert programs > 0
    made = source(kernel, arguments, constants)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    key = repr((kernel.__name__, made.signature, made.constants, made.attrs, options))
    _launches.setdefault(key, (f"{kernel.__name__} of {_label}", made, options))


def vectors(channels: int, dtype: torch.dtype) -> tuple[Any, ...]:
    return None, *(torch.ones(channels) for _ in range(4)), 1e-3


def pointwise(
    dtype: torch.dtype, c_in: int, c_out: int, size: int, *, plain: bool, images: int = 2
) -> None:
    x = torch.empty(images, c_in, size, size, dtype=dtype)
    weight = torch.empty(c_out, c_in, dtype=dtype)
    gate = None if plain else torch.ones(images, c_in)
    residual = None if plain else torch.empty(images, c_out, size, size, dtype=dtype)
    norm = vectors(c_out, dtype)
    if plain:
        pointwise_conv_bn_act.pointwise_conv_bn_act_pool(x, weight, *norm, "silu")
        pointwise_conv_bn_act.pointwise_conv_bn_act_squeeze(x, weight, *norm, "silu")
    else:
        pointwise_conv_bn_act.pointwise_conv_bn_act(x, weight, *norm, gate, residual, "silu")


# Input channels, output channels and sizes that reach each row of the configuration tables.
_POINTWISE = [
    (112, 192, 14),
    (16, 96, 112),
    (24, 144, 56),
    (40, 240, 56),
    (80, 480, 56),
    (96, 16, 112),
    (144, 24, 56),
    (240, 40, 56),
    (480, 192, 56),
]
# One shape per row of the float32 table, for "products", which means only the products of float32.
_FLOAT_PRODUCTS = [(112, 192, 14), (96, 16, 112), (40, 240, 56)]


def reached() -> dict[str, set[Any]]:
    """The configurations that these shapes reach, by table."""
    choose = pointwise_conv_bn_act.choose
    return {
        name: {choose(2 * s * s, i, o, dtype) for i, o, s in _POINTWISE}
        for name, dtype in (("half", torch.bfloat16), ("float", torch.float32))
    }


def every_product(dtype: torch.dtype, shapes: Sequence[tuple[int, int, int]]) -> Iterator[str]:
    """Launch the products; yields the label of each before its launch."""
    precisions = ("tf32", "ieee") if dtype == torch.float32 else ("ieee",)
    for precision in precisions:
        torch.backends.cudnn.conv.fp32_precision = precision
        for shape in shapes:
            for plain in (False, True):
                yield f"{shape} {dtype} {precision}{' plain' if plain else ''}"
                pointwise(dtype, *shape, plain=plain)
            # Tiles that span several images.
            yield f"{shape} {dtype} {precision} small maps"
            pointwise(dtype, *shape[:2], 7, plain=False, images=48)


def every_launch(dtypes: Sequence[torch.dtype]) -> Iterator[str]:
    """Launch everything with every configuration; yields the label of each before its launch."""
    for dtype in dtypes:
        yield from every_product(dtype, _POINTWISE)
        windows = [(k, (s, s)) for k, s in depthwise_conv_bn_act.UNROLLED]
        for kernel, stride in [*windows, (4, (2, 1))]:
            x, weight = torch.empty(2, 40, 29, 29, dtype=dtype), torch.empty(40, 1, kernel, kernel)
            window = (stride, (1, 1, 1, 1), (1, 1), "silu")
            named = WindowArguments(x, weight.to(dtype), *vectors(40, dtype), *window)
            for config in depthwise_conv_bn_act.candidates((kernel, kernel), stride, (1, 1)):
                yield f"{kernel}x{kernel}/{stride} {config} {dtype}"
                depthwise_conv_bn_act.start(config, named, pool=True)
        for images, hidden in ((2, 4), (2, 48), (2, 1000), (128, 4), (128, 112)):
            weight = torch.empty(hidden, 96, dtype=dtype)
            gate = (weight, weight[:, 0], weight.t(), weight[0], "silu")
            for shared in squeeze_excite_gate.candidates(hidden):
                yield f"{shared} for {images} {dtype}"
                squeeze_excite_gate.start(shared, GateArguments(torch.ones(images, 96), *gate))
        for layer in squeeze_excite.CONFIGS:
            yield f"{layer} {dtype}"
            x = torch.empty(2, 96, 9, 9, dtype=dtype)
            squeeze_excite.start(layer, SqueezeExciteArguments(x, *gate))
        for c_out in (32, 64):
            yield f"stem of {c_out} {dtype}"
            x, weight = torch.empty(2, 3, 33, 33, dtype=dtype), torch.empty(c_out, 3, 3, 3)
            window = ((2, 2), (1, 1, 1, 1), (1, 1), "silu")
            flat = (weight.to(dtype), *vectors(c_out, dtype), *window)
            conv_bn_act.conv_bn_act(x, *flat, None, None)
            for images in (x, x.byte()):
                yield f"stem of {c_out} {dtype} that normalises {images.dtype}"
                conv_bn_act.conv_bn_act(images, *flat, torch.ones(3), torch.ones(3))
        yield f"more terms {dtype}"
        x, weight = torch.empty(2, 8, 33, 33, dtype=dtype), torch.empty(40, 8, 5, 5)
        flat = (weight.to(dtype), *vectors(40, dtype), *window)
        for normalise in ((None, None), (torch.ones(8), torch.ones(8))):
            conv_bn_act.conv_bn_act(x, *flat, *normalise)
    # Triton specialises kernels for sizes of 1.
    yield "sizes of 1"
    pointwise(torch.bfloat16, 1, 1, 1, plain=False)
    pointwise(torch.bfloat16, 1, 1, 1, plain=True)
    one = torch.empty(1, 1, 1, 1, dtype=torch.bfloat16)
    window = ((1, 1), (0, 0, 0, 0), (1, 1), "relu6")
    depthwise_conv_bn_act.depthwise_conv_bn_act_pool(one, one, None, *(None,) * 4, 0.0, *window)
    weight = torch.empty(1, 1, 3, 3, dtype=torch.bfloat16)
    window = ((1, 1), (1, 1, 1, 1), (1, 1), "relu6")
    depthwise_conv_bn_act.depthwise_conv_bn_act_pool(one, weight, None, *(None,) * 4, 0.0, *window)
    conv_bn_act.conv_bn_act(one, weight, None, *(None,) * 4, 0.0, *window, None, None)
    conv_bn_act.conv_bn_act(one, one, None, *(None,) * 4, 0.0, *window, None, None)
    squeeze_excite.squeeze_excite(one, one[0, 0], None, one[0, 0], None, "hardswish")


def dump(cubin: bytes, *options: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(_CUOBJDUMP), *options, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    global _label
    capability, names, labels = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
    products = names[-1] == "products"
    if products:
        del names[-1]
    for module in _MODULES:
        module.launch = record
    # Programs with several parts; of the kernels that are asked for also programs with one, which need fewer registers.
    for launch.BUSY in (1, 2**30) if capability == 90 and labels else (1,):
        for label in every_launch([getattr(torch, name) for name in names]):
            _label = label
    if products:
        for label in every_product(torch.float32, _FLOAT_PRODUCTS):
            _label = label
    tables = {"half": pointwise_conv_bn_act._HALF, "float": pointwise_conv_bn_act._FLOAT}
    for name, table in tables.items():
        assert reached()[name] == {row.config for row in table}, f"a row of {name} is not reached"
    for label, made, options in _launches.values():
        if labels and not label.startswith(tuple(labels)):
            continue
        compiled = triton.compile(made, target=GPUTarget("cuda", capability, 32), options=options)
        cubin = compiled.asm["cubin"]
        usage = dump(cubin, "--dump-resource-usage")
        (numbers,) = re.findall(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
        registers, stack, shared, local = map(int, numbers)
        found = {
            "kernel": label,
            "registers": registers,
            "spilled": stack + local,
            "shared": shared + compiled.metadata.shared,
            # Of SiLU; gates have others.
            "exponentials": compiled.asm["ptx"].count("ex2.approx.ftz.f32"),
            "reciprocals": compiled.asm["ptx"].count("rcp.approx.ftz.f32"),
            "narrow": re.findall(r"\b(?:ld|st)\.global[\w.:]*\.b16", compiled.asm["ptx"]),
        }
        product = "dot" in compiled.asm["ttir"]
        if product or capability == 90:
            sass = dump(cubin, "-sass")
            found["instructions"] = len(_INSTRUCTION.findall(sass))
        if product:
            found["products"] = sorted(set(re.findall(_PRODUCTS, sass)))
            found["operands"] = sorted(set(re.findall(r"kind::\w+", compiled.asm["ptx"])))
        print(json.dumps(found), flush=True)


main()
