"""Runs ops in Triton's interpreter, and checks every address that kernels read and write.

See `workers`, which contains both ends of its pipes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter

from cpu_kernels import poisoned, tensors
from effkernels import ops, use_backend
from effkernels._backends.triton import (
    conv_bn_act,
    depthwise_conv_bn_act,
    pointwise_conv_bn_act,
    squeeze_excite,
    squeeze_excite_gate,
)
from interpreter_loops import allow_loops
from networks import run_network
from several_parts import several_parts
from workers import serve

Results = tuple[Tensor, ...]
TUNED = (
    conv_bn_act,
    depthwise_conv_bn_act,
    pointwise_conv_bn_act,
    squeeze_excite,
    squeeze_excite_gate,
)


class Memory:
    """The interpreter's memory, of which kernels may access only the tensors that they were given.

    The gaps of a tensor, such as every second column of another tensor, are not checked.
    """

    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self._given: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def give(self, arguments: tuple[Any, ...]) -> None:
        self._given = []
        for tensor in arguments:
            if isinstance(tensor, Tensor) and tensor.numel():
                last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
                first = tensor.data_ptr()
                self._given.append((first, first + (last + 1) * tensor.element_size()))

    def _check(self, what: str, pointers: Any, mask: Any) -> None:
        touched = pointers[np.broadcast_to(mask, pointers.shape)]
        inside = np.zeros(touched.shape, bool)
        for first, end in self._given:
            inside |= (touched >= first) & (touched < end)
        if not inside.all():
            raise IndexError(f"{what} {np.count_nonzero(~inside)} elements out of bounds")

    def load(self, pointers: Any, mask: Any, other: Any, dtype: Any) -> Any:
        self._check("reads", pointers, mask)
        return self._memory.load(pointers, mask, other, dtype)

    def store(self, pointers: Any, values: Any, mask: Any) -> Any:
        self._check("writes", pointers, mask)
        return self._memory.store(pointers, values, mask)


class Lasting:
    """A patch that is not undone."""

    def restore(self) -> None:
        pass


def patch_interpreter() -> None:
    memory = Memory(interpreter._interpreter)
    interpreter._interpreter = memory
    start = interpreter.GridExecutor._init_args_hst

    def started(self: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        copies = start(self, arguments, named)
        memory.give(copies[0])
        return copies

    interpreter.GridExecutor._init_args_hst = started

    # Otherwise each call of a function within a kernel would patch the whole language again: 5 ms.
    patch: Callable[[Any], Any] = interpreter._patch_lang
    patched: set[frozenset[int]] = set()

    def patch_once(function: Any) -> Lasting:
        languages = frozenset(
            id(value) for value in function.__globals__.values() if value is tl or value is tl.core
        )
        if languages not in patched:
            patch(function)
            patched.add(languages)
        return Lasting()

    interpreter._patch_lang = patch_once

    # Otherwise each operation on a block would make a table of all types again.
    numpy_type: Callable[[Any], Any] = interpreter._get_np_dtype
    known: dict[str, Any] = {}

    def numpy_type_once(dtype: Any) -> Any:
        scalar = dtype.scalar
        if scalar.name not in known:
            known[scalar.name] = numpy_type(scalar)
        return known[scalar.name]

    interpreter._get_np_dtype = numpy_type_once

    # Round as a GPU does; the interpreter truncates to bfloat16, which errs twice as much and always towards
    # zero.
    cast = interpreter.InterpreterBuilder.cast_impl

    def cast_rounding(self: Any, source: Any, target: Any) -> Any:
        if (source.dtype.scalar, target.scalar) == (tl.bfloat16, tl.float32):  # ten times as fast
            widened = source.data.astype(np.uint32) << 16
            return interpreter.TensorHandle(widened.view(np.float32), tl.float32)
        if (source.dtype.scalar, target.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, source, target)
        rounded = torch.from_numpy(np.array(source.data, order="C")).bfloat16()
        return interpreter.TensorHandle(
            rounded.view(torch.int16).numpy().view(np.uint16), tl.bfloat16
        )

    interpreter.InterpreterBuilder.cast_impl = cast_rounding
    # Takes a third of the interpreter's time and finds nothing: its assertion is left out unless Triton is debugged.
    TritonSemantic.binary_op_sanitize_overflow_impl = lambda *arguments: None
    allow_loops()


@triton.jit
def _planted_kernel(x, y, count, BEFORE: tl.constexpr, AFTER: tl.constexpr):
    i = tl.arange(0, 16)
    value = tl.load(x + i, mask=i < count + BEFORE)
    tl.store(y + i, value, mask=i < count + AFTER)


class Worker:
    def op(self, name: str, arguments: dict[str, Any]) -> Results:
        with poisoned(), use_backend("triton", fallback=False):
            return tensors(getattr(ops, name)(**arguments))

    def candidate(self, place: int, name: str, arguments: dict[str, Any]) -> Results:
        """With the configuration at that index of the list that tuning would choose from, or with the last
        one.
        """

        def tuned(x: Tensor, key: Any, chosen: Any, candidates: Sequence[Any], start: Any) -> Any:
            return candidates[min(place, len(candidates) - 1)]

        with ExitStack() as patches:
            for module in TUNED:
                patches.enter_context(patch.multiple(module, tuning=lambda x: True, tuned=tuned))
            return self.op(name, arguments)

    def private(self, name: str, flat: tuple[Any, ...]) -> Results:
        with poisoned():
            return tensors(getattr(torch.ops.effkernels_triton, name)(*flat))

    def network(self, model: torch.nn.Module, x: Tensor) -> tuple[Tensor, list[str]]:
        """The result for ``x``, and the op and backend of each call."""
        with poisoned(), use_backend("triton", fallback=False):
            return run_network(model, x)

    def planted(self, before: int, after: int) -> Tensor:
        """Run a kernel that reads and writes this many elements out of bounds."""
        x, y = torch.arange(16.0), torch.zeros(16)
        _planted_kernel[(1,)](x[:10], y[:10], 10, before, after)
        return y


patch_interpreter()
torch.set_num_threads(1)
with several_parts():
    serve(Worker())
