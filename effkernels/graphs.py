"""A model's forward pass as a CUDA graph: one launch for all of its kernels."""

from __future__ import annotations

import itertools
import operator
import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from effkernels import dispatch, unchanged
from effkernels.nn._plain import any_global_hook, hook_dicts, look_at_modules
from effkernels.ops._arguments import check_images
from effkernels.unchanged import Objects

_DEVICE_TYPE = "cuda"
_WARM_UP = (
    3  # passes, as in PyTorch's make_graphed_callables: libraries choose algorithms in the first
)
_one_capture = threading.Lock()  # PyTorch allows one capture at a time in a process


@dataclass(frozen=True)
class _Captured:
    """A graph, its input tensor, and its output: a tensor, or a list or tuple of tensors."""

    graph: torch.cuda.CUDAGraph
    input: Tensor
    output: Any


class _CudaGraphs:
    """Captures and replays graphs on one device.

    All graphs share one memory pool, so that together they need only as much as the largest of them. So no two
    may run at the same time: each replay waits for the previous one, whichever stream that was on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # One stream for all captures: on different streams they could not share memory.
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._last_replay = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._alive = 0
        self._pool: Any = None

    def capture(self, model: nn.Module, x: Tensor) -> _Captured:
        """Capture the pass for inputs like ``x``. Only the warm-up passes before the capture compute anything."""
        if not self._alive:
            # A pool must not be used again after its last graph was freed.
            self._pool = torch.cuda.graph_pool_handle()
        # The autocast cache would keep casts of weights from before the capture, or from its memory pool.
        autocast = torch.autocast(
            _DEVICE_TYPE,
            enabled=dispatch.autocast_enabled(_DEVICE_TYPE),
            dtype=torch.get_autocast_dtype(_DEVICE_TYPE),
            cache_enabled=False,
        )
        with (
            _one_capture,
            torch.cuda.device(self._device),
            torch.inference_mode(False),  # inference tensors cannot be written to outside of it
            torch.no_grad(),
            autocast,
        ):
            # Copying the input into NHWC does the conversion that the model would do first.
            static = torch.empty_like(x, memory_format=torch.channels_last)
            static.copy_(x)
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP):
                    _check_output(model(static))
            current.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Only this thread is checked: other threads may make calls that are forbidden during a capture.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                output = model(static)
        self._alive += 1
        return _Captured(graph, static, output)

    def run(self, captured: _Captured, x: Tensor, copy: bool) -> Any:
        """Replay on the current stream; return a copy of the result, or the graph's own output tensors."""
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            stream.wait_event(self._last_replay)
            captured.input.copy_(x)
            captured.graph.replay()
            result = _cloned(captured.output) if copy else captured.output
            self._last_replay.record(stream)
        return result

    def release(self, captured: _Captured) -> None:
        """Free a graph, once the device has finished with it."""
        self._last_replay.synchronize()
        captured.graph.reset()
        self._alive -= 1


def _check_output(output: Any) -> None:
    parts = output if isinstance(output, (list, tuple)) else [output]
    if not all(isinstance(part, Tensor) for part in parts):
        raise TypeError(
            "graph: model must return a tensor, or a list or tuple of tensors, "
            f"got {type(output).__name__}"
        )


def _cloned(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.clone()
    copies = [part.clone() for part in output]
    return copies if isinstance(output, list) else tuple(copies)


def _trains(module: nn.Module) -> bool:
    """Whether the module is in training mode and that can change what it computes."""
    return module.training and type(module) is not nn.Identity


class _State:
    """What a captured graph depends on: the model's modules, and the memory of its parameters and buffers.

    Compared as a whole at each call; by compiled code, if it can tell that nothing at all has changed.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = list(model.modules())
        self._hooks = [hooks for module in self.modules for hooks in hook_dicts(module)]
        self._dicts: list[dict[str, Any]] = [
            values for m in self.modules for values in (m._modules, m._parameters, m._buffers)
        ]
        self._values = self._now()
        self.tensors = [value for value in self._values if isinstance(value, Tensor)]
        self._addresses = list(map(Tensor.data_ptr, self.tensors))
        self._holder = unchanged.hold(self.tensors)
        self._objects: Objects | None = None

    def untouched(self) -> bool:
        """Whether nothing has changed since :meth:`note` said that all is well."""
        return self._objects is not None and self._objects.same() and self._in_place()

    def _in_place(self) -> bool:
        """Whether the tensors lie where they lay."""
        if self._holder is not None:
            return self._holder.same_memory()
        return list(map(Tensor.data_ptr, self.tensors)) == self._addresses

    def look(self) -> Objects | None:
        """The modules as they are now; None where nobody can tell."""
        try:
            return look_at_modules(self.modules)
        except (AttributeError, KeyError, TypeError):  # a module that is no ordinary one
            return None

    def note(self, objects: Objects | None) -> None:
        """Let :meth:`untouched` compare with what :meth:`look` returned, now that the model was found to be fine."""
        self._objects = objects

    def _now(self) -> list[Any]:
        return list(itertools.chain.from_iterable(map(dict.values, self._dicts)))

    def changed(self) -> bool:
        now = self._now()
        return not (
            len(now) == len(self._values)
            and all(map(operator.is_, now, self._values))
            and self._in_place()
        )

    def hooked(self) -> bool:
        return any(self._hooks) or any_global_hook()


class GraphedModel:
    """The result of :func:`graph`; called like the model. Calls from several threads take turns."""

    def __init__(self, model: nn.Module, max_shapes: int, copy: bool) -> None:
        self._model = model
        self._max_shapes = max_shapes
        self._copy = copy
        self._lock = threading.Lock()
        self._captured: dict[Any, Any] = {}  # least recently used first
        self._read_model()

    def _read_model(self) -> None:
        state = _State(self._model)
        devices = {tensor.device for tensor in state.tensors}
        if {device.type for device in devices} != {_DEVICE_TYPE} or len(devices) != 1:
            found = " and ".join(sorted(map(str, devices))) or "no device, without parameters"
            raise ValueError(
                f"graph: model is on {found}; CUDA graphs need all of it on one CUDA device: "
                "model.cuda()"
            )
        self._state = state
        self._device = devices.pop()
        self._graphs = _CudaGraphs(self._device)

    def __call__(self, input: Tensor) -> Any:
        """``model(input)`` without gradients. See :func:`graph` for arguments and errors."""
        with self._lock:
            if not self._state.untouched():
                if self._state.changed():
                    self._release()
                    self._read_model()
                objects = self._state.look()
                self._check_model()
                self._state.note(objects)
            self._check(input)
            autocast = dispatch.autocast_enabled(_DEVICE_TYPE)
            cast = torch.get_autocast_dtype(_DEVICE_TYPE) if autocast else None
            # Everything that decides which kernels run.
            key = tuple(input.shape), input.dtype, cast, dispatch.requested_backend()
            captured = self._captured.pop(key, None)
            if captured is None:
                while len(self._captured) >= self._max_shapes:
                    self._graphs.release(self._captured.pop(next(iter(self._captured))))
                captured = self._graphs.capture(self._model, input)
            self._captured[key] = captured
            return self._graphs.run(captured, input, self._copy)

    def _check_model(self) -> None:
        if any(map(_trains, self._state.modules)):
            names = [name for name, module in self._model.named_modules() if _trains(module)]
            which = f"{names[0]} of the model" if names[0] else "model"
            raise ValueError(f"graph: {which} is in training mode: call model.eval()")
        if self._state.hooked():
            raise ValueError("graph: model has hooks, which a graph would not call: remove them")

    def _check(self, input: Tensor) -> None:
        check_images("graph", input, "input", uint8=True)
        if input.device != self._device:
            raise ValueError(
                f"graph: input is on {input.device}, model on {self._device}: move one of them"
            )
        if input.requires_grad:
            raise ValueError(
                "graph: input requires grad, but graphs compute no gradients: detach it"
            )
        if not input.shape[0]:
            raise ValueError(f"graph: input has no images, got shape {tuple(input.shape)}")

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Input shapes that have a graph, least recently used first."""
        return [key[0] for key in self._captured]

    def release(self) -> None:
        """Free all graphs and their memory, once the device has finished with them. A later call captures again."""
        with self._lock:
            self._release()

    def _release(self) -> None:
        while self._captured:
            self._graphs.release(self._captured.popitem()[1])


def graph(
    model: nn.Module, example_input: Tensor, *, max_shapes: int = 8, copy: bool = True
) -> GraphedModel:
    """A callable that runs ``model`` in inference as a CUDA graph: one launch instead of one per kernel.

    The pass is captured now for inputs like ``example_input``, and later at the first call with any other shape
    or dtype, or under another ``use_backend`` or ``torch.autocast``; that call takes as long as several passes.
    Weights and statistics that change in place are followed; if a parameter, buffer or module is replaced, moved
    or cast, everything is captured again. Changes of other attributes (a BatchNorm's eps, a stride, a patched
    method) and of what Python code in the model does take effect only at a capture: call ``release`` after
    changing them.

    Args:
        model: on one CUDA device, in eval mode, without hooks; returns a tensor, or a list or tuple of them.
        example_input: (N, C, H, W) with N of at least 1, floating point or uint8, on the model's device.
        max_shapes: how many graphs to keep; the least recently used is dropped first. They share their working
            memory, and each has its own input and result.
        copy: if True, return a copy of the result: a few kB for logits, a pass over memory for feature maps. If
            False, return the graph's own tensors: the next call, of any shape, overwrites them, and they must be
            read on the stream of the call.

    Returns:
        A callable that takes inputs like ``example_input``, in any memory layout, with ``release()`` and
        ``shapes``.
        It runs on the current stream, without gradients.

    Raises:
        ValueError: ``model`` or the input is on another device; ``model`` is in training mode or has hooks; the
            input requires grad; ``max_shapes`` is below 1. Calls raise it too, where the model has changed.
        TypeError: ``model`` is not a module or returns something else; input is not a floating-point or uint8
            tensor.
        Exception: whatever the model raises.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"graph: model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(max_shapes, bool) or not isinstance(max_shapes, int) or max_shapes < 1:
        raise ValueError(f"graph: max_shapes must be an int, at least 1, got {max_shapes!r}")
    graphed = GraphedModel(model, max_shapes, copy)
    graphed(example_input)
    return graphed
