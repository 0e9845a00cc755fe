"""Runs ops in the host shim: a process of its own, because AddressSanitizer must be loaded before Python.

See `workers`, which holds both ends of its pipes.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

import torch
from torch import Tensor

from cpu_kernels import poisoned, tensors
from effkernels import dispatch, ops, use_backend
from effkernels._backends.compiled import cuda_module
from networks import run_network
from workers import serve

Results = tuple[Tensor, ...]


class Worker:
    def __init__(self) -> None:
        module = cuda_module()
        assert module is not None
        assert module.__file__ is not None
        self.library = ctypes.CDLL(module.__file__)
        self.library.effkernels_run_planted.restype = ctypes.c_char_p
        self.library.effkernels_warpgroup_products.restype = ctypes.c_int64
        # The kernels were registered for the dispatch key of CPU tensors.
        dispatch._BACKENDS["cuda"].devices = ("cpu",)
        dispatch.mark_available("cuda")

    def seed(self, seed: int) -> None:
        self.library.effkernels_set_seed(ctypes.c_uint64(seed))

    def device(self, multiprocessors: int = 0, shared_bytes: int = 0) -> None:
        """What the kernels are told of the device from now on; the shim's small one by default."""
        self.library.effkernels_set_device(multiprocessors, ctypes.c_int64(shared_bytes))

    def warpgroups(self, there: bool) -> int:
        """Whether kernels with products of warpgroups are there from now on; how many such products were started."""
        self.library.effkernels_have_warpgroups(there)
        return int(self.library.effkernels_warpgroup_products())

    def tensor_memory(self, there: bool) -> None:
        """Whether the module has the kernels that need it, from now on."""
        self.library.effkernels_set_tensor_memory(ctypes.c_bool(there))

    def environment(self, name: str, value: str | None) -> None:
        """Set a variable of the process, or remove it."""
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

    def depthwise_plan(self, shape: tuple[int, ...], device: tuple[int, int, int]) -> list[int]:
        """See `plans.cu`; the device's multiprocessors, bytes of a block and of a multiprocessor."""
        given, found = (ctypes.c_int64 * 8)(*shape), (ctypes.c_int64 * 10)()
        multiprocessors, *sizes = device
        self.library.effkernels_depthwise_plan(
            given, multiprocessors, *map(ctypes.c_int64, sizes), found
        )
        return list(found)

    def op(self, name: str, arguments: dict[str, Any], seed: int) -> Results:
        """Twice, with blocks and threads in another order: not a bit may differ."""
        found: list[Results] = []
        for order in (seed, seed + 1):
            self.seed(order)
            with poisoned(), use_backend("cuda", fallback=False):
                found.append(tensors(getattr(ops, name)(**arguments)))
        for one, other in zip(*found, strict=True):
            bits = {2: torch.int16, 4: torch.int32}[one.element_size()]
            assert torch.equal(one.view(bits), other.view(bits)), "depends on the order of threads"
        return found[0]

    def private(self, name: str, flat: tuple[Any, ...]) -> Results:
        with poisoned():
            return tensors(getattr(torch.ops.effkernels_cuda, name)(*flat))

    def network(self, model: torch.nn.Module, x: Tensor) -> tuple[Tensor, list[str]]:
        """What it makes of ``x``, and who computed each call."""
        with poisoned(), use_backend("cuda"):
            return run_network(model, x)

    def planted(self, name: str, seed: int) -> Tensor:
        self.seed(seed)
        out = torch.full((64,), -1.0)
        error = self.library.effkernels_run_planted(name.encode(), ctypes.c_void_p(out.data_ptr()))
        if error is not None:
            raise RuntimeError(error.decode())
        return out

    def convert(self, x: Tensor) -> Results:
        half, bfloat16 = (torch.empty(x.shape, dtype=d) for d in (torch.float16, torch.bfloat16))
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, half, bfloat16)]
        self.library.effkernels_convert(*pointers, ctypes.c_int64(x.numel()))
        return half, bfloat16

    def silu(self, x: Tensor, together: int) -> Tensor:
        """Of float32 values, so many at a time."""
        y = x.clone()
        pointer, count = ctypes.c_void_p(y.data_ptr()), ctypes.c_int64(y.numel())
        self.library.effkernels_silu(pointer, count, ctypes.c_int(together))
        return y


torch.set_num_threads(1)
serve(Worker())
