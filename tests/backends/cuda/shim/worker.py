"""Runs ops in the host shim: a process of its own, because AddressSanitizer must be loaded before Python.

See `workers`, which holds both ends of its pipes.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cpu_kernels import poisoned, tensors
from effkernels import EfficientNet, EfficientNetFeatures, dispatch, explain, ops, use_backend
from effkernels._backends.compiled import cuda_module
from effkernels._backends.network_layout import NUMBERS
from effkernels._backends.network_ops import OPS, HeldNetwork, flat_of
from effkernels.launch_timing import timer_of
from effkernels.ops._steps import LINEAR, run_by_steps, run_steps
from effkernels.profiling import gpu
from networks import network_of, run_network
from workers import serve

Results = tuple[Tensor, ...]
Change = Callable[[EfficientNet], None]


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

    def memory(self, l2_bytes: int = 0, rate: float = 0.0, l2_rate: float = 0.0) -> None:
        """What the device's memory and cache do from now on; an H100's by default."""
        self.library.effkernels_set_memory(
            ctypes.c_int64(l2_bytes), ctypes.c_double(rate), ctypes.c_double(l2_rate)
        )

    def images_of_a_part(self, *block: int) -> int:
        """See `batch_parts.cpp`."""
        images = self.library.effkernels_images_of_a_part
        images.restype = ctypes.c_int64
        return int(images((ctypes.c_int64 * len(block))(*block)))

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

    def expand_depthwise_parts(self, *shape: int) -> int:
        """See `plans.cu`."""
        found = self.library.effkernels_expand_depthwise_parts
        return int(found((ctypes.c_int64 * len(shape))(*shape)))

    def has_few_pixels(self, *shape: int) -> bool:
        """See `plans.cu`."""
        found = self.library.effkernels_has_few_pixels
        found.restype = ctypes.c_bool
        return bool(found((ctypes.c_int64 * len(shape))(*shape)))

    def warpgroup_plan(self, *shape: int) -> list[int] | None:
        """See `plans.cu`; None if there is none."""
        return self._plan(self.library.effkernels_warpgroup_plan, 7, shape)

    def means_plan(self, *shape: int) -> list[int] | None:
        """See `plans.cu`; None if there is none."""
        return self._plan(self.library.effkernels_means_plan, 5, shape)

    @staticmethod
    def _plan(planned: Any, count: int, shape: Sequence[int]) -> list[int] | None:
        planned.restype = ctypes.c_bool
        found = (ctypes.c_int64 * count)()
        return list(found) if planned((ctypes.c_int64 * len(shape))(*shape), found) else None

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

    def steps_and_network(
        self, model: EfficientNet, x: Tensor, change: Change | None = None
    ) -> dict[str, Tensor]:
        """What the steps make of ``x`` one by one, and the op for all of them: given tensors, and holding them.

        ``change`` is made to the model after a first call of the op that holds its tensors.
        """
        with use_backend("cuda"):
            network, tensors = network_of(model, x)
        held = HeldNetwork(OPS["cuda"], tensors, network)
        if change is not None:
            held(x)
            change(model)
        with poisoned(), use_backend("cuda", fallback=False), torch.no_grad():
            found = {"given": OPS["cuda"].run(x, tensors, network)}
            for i in range(2):
                self.seed(i)
                found[f"held {i}"] = held(x)
            *body, last = network.steps
            ops_take = network.with_matrices(tensors)
            y = run_steps(x, ops_take, body if last.op == LINEAR else network.steps)
            if last.op == LINEAR:
                weight, bias = last.arguments(tensors)
                y = y.to(weight.dtype)[:, :, None, None]
                y = ops.pointwise_conv_bn_act(y, weight, bias=bias, activation="identity").flatten(
                    1
                )
        return found | {"steps": y}

    def steps_and_maps(
        self, model: EfficientNet | EfficientNetFeatures, x: Tensor
    ) -> dict[str, list[Tensor]]:
        """Feature maps from the steps one by one, and from the op for all of them: given tensors, and holding them."""
        with use_backend("cuda"):
            network, tensors = network_of(model, x, maps=True)
        held = HeldNetwork(OPS["cuda"], tensors, network)
        with poisoned(), use_backend("cuda", fallback=False), torch.no_grad():
            found = {"given": OPS["cuda"].run(x, tensors, network)}
            for i in range(2):
                self.seed(i)
                found[f"held {i}"] = held(x)
            return found | {"steps": list(run_by_steps(x, tensors, network))}

    def kept_maps(self, first: list[int], second: list[int]) -> tuple[bool, int]:
        """See `plans.cu`; and how many maps the two runs have encoded."""
        encoded, keep = self.library.effkernels_encoded_maps, self.library.effkernels_keep_maps
        encoded.restype, keep.restype = ctypes.c_int64, ctypes.c_bool
        before, numbers = encoded(), ctypes.c_int64 * len(first)
        right = keep(numbers(*first), numbers(*second), ctypes.c_int64(len(first)))
        return bool(right), encoded() - before

    def maps_of_calls(
        self, model: EfficientNet, x: Tensor, change: Change
    ) -> tuple[int, list[int]]:
        """How many tensor maps a network that is held encodes: in a call, in another, and in one after a change.

        And before these, how many of its launches read weights by a tensor map.
        """
        with use_backend("cuda"):
            network, tensors = network_of(model, x)
        held = HeldNetwork(OPS["cuda"], tensors, network)
        encoded = self.library.effkernels_encoded_maps
        encoded.restype = ctypes.c_int64
        counts = []
        dispatch.record_launches(True)
        for call in range(3):
            before = encoded()
            held(x)
            counts.append(encoded() - before)
            if call == 0:
                launches = dispatch.record_launches(False)
            if call == 1:
                change(model)
        of_warpgroups = ("pointwise_nhwc_warpgroup_fwd", "pointwise_means_warpgroup_fwd")
        readers = sum(launch.kernel in of_warpgroups for launch in launches)
        return readers, counts

    def network_bytes(self, model: EfficientNet, shape: tuple[int, ...]) -> int:
        """Of workspace, for images of the type of the model."""
        x = torch.zeros(0, *shape[1:], dtype=next(model.parameters()).dtype)
        with use_backend("cuda"):
            network, tensors = network_of(model, x)
        flat = flat_of(network)
        images = x.new_zeros(1).expand(shape)
        given = [tensors[place] for place in flat.tensors]
        return int(torch.ops.effkernels_cuda.network_bytes(images, given, flat.numbers, flat.eps))

    def host_path(
        self, model: EfficientNet | EfficientNetFeatures, x: Tensor
    ) -> tuple[list[str], list[str]]:
        """PyTorch's operators in a call of a network that is held, and the Python functions."""
        with use_backend("cuda"):
            network, tensors = network_of(model, x, maps=isinstance(model, EfficientNetFeatures))
        held = HeldNetwork(OPS["cuda"], tensors, network)
        held(x)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            held(x)
        functions: list[str] = []

        def noted(frame: Any, event: str, argument: Any) -> None:
            if event == "call":
                functions.append(frame.f_code.co_name)

        sys.setprofile(noted)
        try:
            held(x)
        finally:
            sys.setprofile(None)
        return [event.name for event in profile.events()], functions

    def explained(
        self, model: EfficientNet | EfficientNetFeatures, x: Tensor
    ) -> tuple[list[dispatch.Launch], str]:
        """Kernels as they were launched, and the whole text."""
        with use_backend("cuda"):
            found = explain(model, x)
        return list(found.launches), str(found)

    def profiled(
        self, model: EfficientNet, x: Tensor, runs: int, launching: int = 0
    ) -> tuple[gpu.GpuProfile, list[Tensor]]:
        """By the shim's clocks; and what the model computes before, while each launch is timed, and after.

        ``launching``: nanoseconds that the host takes for a launch; as long as usual if 0.
        """
        timer = timer_of("cuda")
        assert timer is not None
        self.library.effkernels_set_launching(ctypes.c_int64(launching))
        results = []
        try:
            with use_backend("cuda"), torch.no_grad():
                rates = gpu.rates_of(timer, x, x.dtype, None, None)
                results.append(model(x))
                timer.time("each launch", 0.0)
                try:
                    results.append(model(x))
                finally:
                    timer.time(None)
                with mock.patch.multiple(gpu, _WARM_UP=1, _WARM_UP_SECONDS=0.0):
                    found = gpu.profile_launches(
                        model, x, timer, runs, device="shim", rates=rates, wait=lambda: None
                    )
                results.append(model(x))
        finally:
            self.library.effkernels_set_launching(ctypes.c_int64(0))
        return found, results

    def broken_network(self, model: EfficientNet, x: Tensor, broken: str) -> Tensor:
        """The op, given arguments that do not belong together."""
        with use_backend("cuda"):
            network, tensors = network_of(model, x)
        flat = flat_of(network)
        given, numbers = [tensors[place] for place in flat.tensors], list(flat.numbers)
        eps = list(flat.eps)
        if broken == "numbers":
            numbers.pop()
        elif broken == "eps":
            eps.pop()
        elif broken == "tensors":
            given.pop()
        elif broken == "kind":
            numbers[len(NUMBERS) + NUMBERS.index("kind")] = 7
        else:
            x = x[:, :2]
        y: Tensor = torch.ops.effkernels_cuda.network(x, given, numbers, eps)
        return y

    def ops_of_a_forward(self, model: EfficientNet | EfficientNetFeatures, x: Tensor) -> list[str]:
        """Ops of this package, in the order of their calls."""
        seen: list[str] = []

        class Seen(TorchDispatchMode):
            sees_effkernels_ops = True

            def __torch_dispatch__(
                self, func: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                if func.namespace.startswith("effkernels"):
                    seen.append(str(func))
                return func(*args, **(kwargs or {}))

        with use_backend("cuda"), torch.no_grad(), Seen():  # type: ignore[no-untyped-call]
            model(x)
        return seen

    def memory_plan(self, uses: list[tuple[int, int, int]]) -> tuple[list[int], int]:
        """Offsets of buffers, and the bytes of all; see `plans.cu`."""
        flat = [value for use in uses for value in use]
        given, found = (ctypes.c_int64 * len(flat))(*flat), (ctypes.c_int64 * len(uses))()
        self.library.effkernels_plan_memory.restype = ctypes.c_int64
        count = ctypes.c_int64(len(uses))
        total = int(self.library.effkernels_plan_memory(given, count, found))
        return list(found), total

    def planted(self, name: str, seed: int) -> Tensor:
        self.seed(seed)
        out = torch.full((64,), -1.0)
        error = self.library.effkernels_run_planted(name.encode(), ctypes.c_void_p(out.data_ptr()))
        if error is not None:
            raise RuntimeError(error.decode())
        return out

    def mistake(self, name: str, seed: int) -> None:
        """As `planted`, in a process that a sanitizer may end; raises what was said."""
        with tempfile.TemporaryFile() as said:
            child = os.fork()
            if child == 0:
                os.dup2(said.fileno(), 2)
                try:
                    self.planted(name, seed)
                except RuntimeError as error:
                    os.write(2, str(error).encode())
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            said.seek(0)
            report = said.read().decode(errors="replace")
        if report:
            raise RuntimeError(report)

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
