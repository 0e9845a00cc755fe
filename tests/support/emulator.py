"""Computes ops with the CPU kernels for another processor, in an emulator: see tests/backends/cpu/calls.cpp."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# The kinds of arguments, and the types of elements, as calls.cpp numbers them.
_NONE, _NUMBER, _INTS, _TEXT, _TENSOR = range(5)
_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)


class EmulatorError(Exception):
    """The program has ended; the message is what it printed."""


def _ints(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def _list(values: Sequence[int]) -> bytes:
    return _ints(len(values), *values)


def _text(text: str) -> bytes:
    return _ints(len(text)) + text.encode()


def _argument(value: Any) -> bytes:
    """A tensor is sent with its strides, and with all elements of its storage from its first to its last."""
    if value is None:
        return _ints(_NONE)
    if isinstance(value, str):
        return _ints(_TEXT) + _text(value)
    if isinstance(value, (list, tuple)):
        return _ints(_INTS) + _list(value)
    if not isinstance(value, Tensor):
        return _ints(_NUMBER) + struct.pack("<d", value)
    shape = _ints(_TENSOR, _TYPES.index(value.dtype)) + _list(value.shape) + _list(value.stride())
    steps = zip(value.shape, value.stride(), strict=True)
    span = 1 + sum((size - 1) * stride for size, stride in steps) if value.numel() else 0
    held = value.as_strided((span,), (1,), value.storage_offset())
    return shape + _ints(span) + held.view(torch.uint8).numpy().tobytes()


class Emulator:
    """One process that computes calls, one after the other."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )

    def call(
        self, op: str, arguments: Sequence[Any], like: Sequence[Tensor], threads: int
    ) -> tuple[Tensor, ...]:
        """The results of the op, of which those ``like`` them have the shapes and dtypes.

        Args:
            arguments: in the order of the op's schema.

        Raises:
            EmulatorError: the program failed.
        """
        if not any(result.numel() for result in like):  # the bindings call no kernel then
            return tuple(torch.empty_like(result) for result in like)
        results = [_ints(_TYPES.index(result.dtype)) + _list(result.shape) for result in like]
        message = (_text(op), _ints(threads), *map(_argument, arguments), _ints(len(like)))
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(b"".join((*message, *results)))
            stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return tuple(self._read(result, stdout.read(result.nbytes)) for result in like)

    def _read(self, like: Tensor, data: bytes) -> Tensor:
        if len(data) < like.nbytes:
            raise self._ended()
        flat = torch.frombuffer(bytearray(data), dtype=like.dtype)
        if like.dim() != 4:
            return flat.view(like.shape)
        n, channels, height, width = like.shape
        return flat.view(n, height, width, channels).permute(0, 3, 1, 2)

    def _ended(self) -> EmulatorError:
        status = self._process.wait(timeout=60)
        return EmulatorError(f"exit status {status}: {self._log.read_text()}")

    def close(self) -> int:
        """End the program; returns its exit status."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        return self._process.wait(timeout=60)
