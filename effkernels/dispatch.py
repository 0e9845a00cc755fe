"""Which backends can run the ops here, which one runs, and why; and ``use_backend``, which selects one.

Backends register kernels for ops (:func:`register_kernel`). Each call runs on the fastest available backend
that supports the device and accepts the arguments (:func:`choose`); plain PyTorch always comes last.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

Accepts = Callable[..., "str | None"]
KERNEL_DTYPES = frozenset((torch.float32, torch.bfloat16, torch.float16))
"""Of maps and weights that the backends with kernels compute; images may be uint8 too."""

_PROXY = torch._C._TorchDispatchModeKey.PROXY
_PRE_DISPATCH = torch._C.DispatchKey.PreDispatch


@dataclass(frozen=True)
class Kernel:
    """A backend's implementation of one op. ``run`` takes the arguments of the op's schema; ``rejects`` returns
    the reason why it cannot compute them, or None.

    ``by_parts``: ``run`` calls other ops, each of which chooses its own backend. ``bind``: takes all arguments but the
    first, and returns a function of the first alone, which may be called any number of times; or None. ``otherwise``:
    a slower one, for what this one rejects.
    """

    run: Callable[..., Any]
    rejects: Accepts
    by_parts: bool = False
    bind: Callable[..., Callable[[Any], Any] | None] | None = None
    otherwise: Kernel | None = None


@dataclass
class Backend:
    """One way to compute the ops.

    ``unavailable`` is the reason why it cannot run here, or None. A backend with ``on_request`` runs only where it
    is named, never because it is available. ``mistake`` says what is wrong with the backend's settings: choosing
    the backend is then an error.
    """

    name: str
    devices: tuple[str, ...]
    unavailable: str | None = None
    on_request: bool = False
    mistake: str | None = None
    kernels: dict[str, Kernel] = field(default_factory=dict)

    def serves(self, device_type: str) -> bool:
        """Whether it can take tensors on devices of this type."""
        return not self.devices or device_type in self.devices


@dataclass(frozen=True)
class BackendStatus:
    """The status of one backend, as :func:`backends` returns it."""

    name: str
    available: bool
    reason: str | None
    """Why it is not available; None if it is."""
    ops: tuple[str, ...]
    """The ops that it has kernels for. The torch backend computes all of them."""


_NOT_REGISTERED = "it has registered no kernels"

# Fastest first. An empty tuple of devices means all of them.
_BACKENDS: dict[str, Backend] = {
    "cuda": Backend("cuda", ("cuda",), _NOT_REGISTERED),
    "triton": Backend("triton", ("cuda",), _NOT_REGISTERED),
    "cpu": Backend("cpu", ("cpu",), _NOT_REGISTERED),
    "torch": Backend("torch", ()),
}


def _check_available(name: str, given_by: str) -> None:
    if name not in _BACKENDS:
        raise ValueError(
            f"{given_by}: no backend is called {name!r}; there are {', '.join(_BACKENDS)}"
        )
    reason = _BACKENDS[name].unavailable
    if reason is not None:
        raise ValueError(
            f"{given_by}: backend {name!r} is not available: {reason}. See effkernels.backends()"
        )


def _from_environment() -> str | None:
    name = os.environ.get("EFFKERNELS_BACKEND", "").strip().lower()
    return None if name in ("", "auto") else name


_FROM_ENVIRONMENT = _from_environment()


@dataclass(frozen=True)
class Decision:
    """The result of :func:`choose`. ``run_by_parts``: the op calls other ops, which choose their own backends."""

    op: str
    backend: str
    refusals: tuple[tuple[str, str], ...]
    """Faster backends that support the device, and why each of them was not taken."""
    forced: bool
    run_by_parts: bool


@dataclass(frozen=True)
class Launch:
    """A kernel as it was launched on a GPU.

    Attributes:
        kernel: its name.
        blocks: of the launch.
        threads: of a block.
        shared_bytes: dynamic shared memory of a block.
        cluster: neighbouring blocks that run at the same time.
        dependent: whether it may begin before the launch before it has ended.
        part: of the images of a block, from 1.
        parts: in which the block runs, one after the other, because its maps are large.
        step: of the network.
        layer: of the block: expand, depthwise, both as expand+depthwise, squeeze_excite or project; empty where
            the step is no block.
        bytes: that it reads once and writes once, parameters included.
        flops: two per multiply-add.
    """

    kernel: str
    blocks: int
    threads: int
    shared_bytes: int
    cluster: int
    dependent: bool
    part: int = 1
    parts: int = 1
    step: int = 0
    layer: str = ""
    bytes: int = 0
    flops: int = 0


_launch_records: list[Callable[[bool], list[Launch]]] = []


def register_launch_record(record: Callable[[bool], list[Launch]]) -> None:
    """Let :func:`record_launches` call ``record``, which a backend brings that can tell what it launches."""
    _launch_records.append(record)


def record_launches(on: bool) -> list[Launch]:
    """Begin (``on``) or end to note the kernels that this thread launches; returns those noted since the last call.

    Only kernels of networks and blocks are noted, and only by backends that register a record of launches.
    """
    return [launch for record in _launch_records for launch in record(on)]


@dataclass(frozen=True)
class StepTime:
    """What one step of a network took.

    Attributes:
        seconds: from its begin to its end.
        work: kind of work -> the seconds that all threads together spent on it.
    """

    seconds: float
    work: Mapping[str, float]


@dataclass(frozen=True)
class NetworkTime:
    """What one call of a network took: ``seconds`` in all, and its steps on that many ``threads``."""

    seconds: float
    threads: int
    steps: tuple[StepTime, ...]


class Stopwatch(Protocol):
    """What a backend brings that can tell where the time of its networks goes."""

    def record(self, on: bool) -> list[NetworkTime]:
        """Begin to time the networks that this thread runs, or end; what was timed since the last call."""

    def multiply_add_rate(self, dtype: torch.dtype) -> float:
        """The most multiply-adds a second of one thread, measured, in products of this dtype."""


_stopwatches: dict[str, Stopwatch] = {}


def register_stopwatch(backend: str, stopwatch: Stopwatch) -> None:
    """Let :func:`stopwatch` find this one."""
    _stopwatches[backend] = stopwatch


def stopwatch(backend: str) -> Stopwatch | None:
    """What times the networks of a backend; None if it cannot."""
    return _stopwatches.get(backend)


class Watcher(Protocol):
    """What :class:`watching` calls for each choice in its thread."""

    def chosen(
        self, decision: Decision, run: Callable[..., Any] | None
    ) -> Callable[..., Any] | None:
        """Called with each choice; returns the function that is called instead of ``run``."""

    def declined(self, op: str, reason: str) -> None:
        """Called where ``op`` was not even tried."""


class _Choice(threading.local):
    # Instance attributes, which torch.compile guards on (it does not on a ContextVar or a class
    # attribute), so that a compiled function follows use_backend. A threading.local runs __init__
    # in every thread.
    def __init__(self) -> None:
        self.name = _FROM_ENVIRONMENT
        self.fallback = True
        self.watcher: Watcher | None = None


_choice = _Choice()


class FallbackWarning(UserWarning):
    """Something runs slower than it could: on another backend than requested, or without compiled kernels."""


# Stack frames of these packages are skipped: the warning points at the user's code.
_NOT_THE_USER = tuple(str(Path(file).parent) for file in (__file__, torch.__file__))
_warned: set[tuple[str, str, int]] = set()


def warn_once(message: str) -> None:
    """Warn with :class:`FallbackWarning`, once for each line of the user's code that leads here."""
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THE_USER):
        depth, frame = depth + 1, frame.f_back
    place = (message, frame.f_code.co_filename, frame.f_lineno)
    if place not in _warned:
        warnings.warn(message, FallbackWarning, stacklevel=depth)
        _warned.add(place)  # after warn: where warnings are errors, each call must raise


# torch.compile calls it while tracing and puts nothing into the graph. torch.compiler.assume_constant_result
# does nothing but set this attribute, but importing it imports the compiler: over a second.
warn_once._dynamo_marked_constant = True  # type: ignore[attr-defined]


class use_backend:  # noqa: N801 - used like a function
    """Run the ops on one backend within a ``with`` block, in this thread, also in compiled functions.

    Args:
        name: "cuda", "triton", "cpu", "torch", or "auto" for the fastest that accepts the arguments.
        fallback: if True, an op that the backend lacks, or whose arguments it rejects, runs in plain PyTorch with
            a :class:`FallbackWarning` that gives the reason, once per place in the code; if False, it raises.

    Raises:
        ValueError: there is no such backend, or it is not available here (the message says why).
        NotImplementedError: raised by an op that the backend does not compute, with ``fallback=False``.

    The environment variable ``EFFKERNELS_BACKEND``, read at import, sets the default.
    """

    def __init__(self, name: str, *, fallback: bool = True) -> None:
        if name != "auto":
            _check_available(name, "use_backend")
        self.name = None if name == "auto" else name
        self.fallback = fallback

    def __enter__(self) -> use_backend:
        self._previous = (_choice.name, _choice.fallback)
        _choice.name, _choice.fallback = self.name, self.fallback
        return self

    def __exit__(self, *exception: object) -> None:
        _choice.name, _choice.fallback = self._previous


def register_kernel(
    backend: str,
    op: str,
    run: Callable[..., Any],
    rejects: Accepts,
    *,
    by_parts: bool = False,
    bind: Callable[..., Callable[[Any], Any] | None] | None = None,
    otherwise: Kernel | None = None,
) -> None:
    """Register ``run`` as ``backend``'s kernel of ``op``. ``run`` and ``rejects`` take the arguments of its schema.

    ``by_parts``: ``run`` calls other ops, each of which chooses its own backend. ``bind``, ``otherwise``: see
    :class:`Kernel`.
    """
    _BACKENDS[backend].kernels[op] = Kernel(run, rejects, by_parts, bind, otherwise)


def bind(backend: str, op: str, *arguments: Any) -> Callable[[Any], Any] | None:
    """A chosen kernel bound to all of its arguments but the first; None where it has to be given them each time."""
    kernel = _BACKENDS[backend].kernels.get(op)
    return None if kernel is None or kernel.bind is None else kernel.bind(*arguments)


def mark_available(backend: str) -> None:
    """Declare that ``backend`` can run here. Its kernels are considered from now on."""
    _BACKENDS[backend].unavailable = None


def restrict_to_requests(backend: str, devices: tuple[str, ...]) -> None:
    """Limit ``backend`` to these types of devices, and to calls where ``use_backend`` or the environment names it."""
    _BACKENDS[backend].devices = devices
    _BACKENDS[backend].on_request = True


def mark_mistaken(backend: str, mistake: str) -> None:
    """Make choosing ``backend`` a ValueError with this message, because its settings are wrong."""
    _BACKENDS[backend].unavailable = _BACKENDS[backend].mistake = mistake


def mark_unavailable(backend: str, reason: str) -> None:
    """Declare why ``backend`` cannot run here."""
    _BACKENDS[backend].unavailable = reason


class watching:  # noqa: N801 - used like a function
    """Call ``watcher`` for every choice in this thread, within a ``with`` block. Not for compiled functions."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __enter__(self) -> None:
        self._previous = _choice.watcher
        _choice.watcher = self._watcher

    def __exit__(self, *exception: object) -> None:
        _choice.watcher = self._previous


def watched() -> bool:
    """Whether a watcher is set in this thread."""
    return _choice.watcher is not None


def requested_backend() -> tuple[str | None, bool]:
    """The backend that ``use_backend`` or the environment names in this thread, or None; and whether others may run."""
    return _choice.name, _choice.fallback


def choose(
    op: str,
    device_type: str,
    arguments: tuple[Any, ...],
    otherwise: Callable[..., Any] | None = None,
    *,
    composite: bool = False,
) -> Callable[..., Any] | None:
    """Choose the kernel for ``op``; ``otherwise`` runs if no backend accepts the arguments.

    If a backend lacks a ``composite`` op or rejects its arguments, there is neither a warning nor an error: the ops
    that it is composed of choose their own backends.

    Raises:
        ValueError: ``EFFKERNELS_BACKEND`` names no backend, or one that is not available; or the settings of a
            backend for this device are wrong.
        NotImplementedError: the backend selected with ``fallback=False`` does not compute this.
    """
    forced = _choice.name
    candidates: Iterable[Backend] = _BACKENDS.values()
    if forced is not None:
        _check_available(forced, "EFFKERNELS_BACKEND")
        candidates = (_BACKENDS[forced],)
    taken, run, by_parts = "torch", otherwise, composite
    refusals: list[tuple[str, str]] = []
    messages = []
    for backend in candidates:
        if backend.name == "torch":
            break
        if forced is None and (backend.on_request or not backend.serves(device_type)):
            continue
        if backend.mistake is not None:
            raise ValueError(backend.mistake)
        if backend.unavailable is not None:
            refusals.append((backend.name, backend.unavailable))
            continue
        if op not in backend.kernels and (composite or (forced is None and not backend.kernels)):
            continue
        kernel = _kernel(backend, op, device_type, arguments)
        if isinstance(kernel, Kernel):
            taken, run, by_parts = backend.name, kernel.run, kernel.by_parts
            break
        refusals.append((backend.name, kernel))
        if composite:
            continue
        message = f"{op}: not on the {backend.name} backend: {kernel}"
        if forced is not None and not _choice.fallback:
            raise NotImplementedError(
                f"{message}; use_backend({backend.name!r}, fallback=False) allows no other"
            )
        messages.append(message)
    if taken == "torch":
        for message in messages:
            warn_once(message)
    if _choice.watcher is None:
        return run
    decision = Decision(op, taken, tuple(refusals), forced is not None, by_parts)
    return _choice.watcher.chosen(decision, run)


@dataclass(frozen=True)
class Choice:
    """A kernel that :func:`choose` takes for some arguments, wherever it is not told otherwise."""

    backend: Backend
    op: str
    kernel: Kernel

    def holds(self) -> bool:
        """Whether nothing is requested or watched in this thread, and the backend is as it was."""
        backend = self.backend
        return (
            _choice.name is None
            and _choice.watcher is None
            and _BACKENDS[backend.name] is backend
            and backend.unavailable is None
            and backend.kernels.get(self.op) is self.kernel
        )


def choice(name: str, op: str, arguments: tuple[Any, ...]) -> Choice | None:
    """The kernel of a backend that :func:`choose` takes for these arguments; None if it does not."""
    backend = _BACKENDS[name]
    kernel = backend.kernels.get(op)
    if kernel is None or kernel.by_parts:
        return None
    made = Choice(backend, op, kernel)
    device_type = arguments[0].device.type
    if not made.holds() or choose(op, device_type, arguments, composite=True) is not kernel.run:
        return None
    return made


def decline(op: str, reason: str) -> None:
    """Tell the watcher, if there is one, why ``op`` is not even tried."""
    if _choice.watcher is not None:
        _choice.watcher.declined(op, reason)


def _kernel(
    backend: Backend, op: str, device_type: str, arguments: tuple[Any, ...]
) -> Kernel | str:
    """The kernel that takes these arguments; or why none does, as the first says."""
    kernel = backend.kernels.get(op)
    if kernel is None:
        return "it has no kernel for this op"
    if not backend.serves(device_type):
        return f"it supports {' and '.join(backend.devices)} tensors, not {device_type}"
    reason = kernel.rejects(*arguments)
    if reason is None:
        return kernel
    slower = kernel.otherwise
    return reason if slower is None or slower.rejects(*arguments) is not None else slower


def autocast_enabled(device_type: str) -> bool:
    """Whether ``torch.autocast`` is on for this type of device. The meta device has none, and PyTorch raises for it."""
    return device_type != "meta" and torch.is_autocast_enabled(device_type)


def transformed() -> bool:
    """Whether a torch.func transform or forward-mode differentiation is active here.

    No kernel computes tangents or batched tensors, so both need PyTorch's own operators.
    """
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


# torch.compile calls it while tracing (see warn_once). The transforms that are active then are those that will be
# active when the graph runs; torch.compile guards on them itself.
transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]


def traced() -> bool:
    """Whether torch.jit.trace is recording. It can record only PyTorch's own operators."""
    return torch._C._is_tracing()


def recorded() -> bool:
    """Whether ``make_fx`` is recording. It must see the public ops, not those of a backend."""
    return torch._C._get_dispatch_mode(
        _PROXY
    ) is not None or torch._C._dispatch_tls_is_dispatch_key_included(_PRE_DISPATCH)


# As for `transformed`.
traced._dynamo_marked_constant = True  # type: ignore[attr-defined]


def observed() -> bool:
    """Whether a ``TorchDispatchMode`` is active that is not PyTorch's own, such as ptflops' FLOP counter.

    Such modes know PyTorch's operators, and would count an effkernels op as free. A mode that wants to see these ops
    sets an attribute, ``sees_effkernels_ops = True``.
    """
    if torch._C._len_torch_dispatch_stack() == 0:
        return False
    return any(not _knows_our_ops(mode) for mode in _get_current_dispatch_mode_stack())


def _knows_our_ops(mode: object) -> bool:
    package = type(mode).__module__.partition(".")[0]
    return package in ("torch", "effkernels") or getattr(mode, "sees_effkernels_ops", False)


def layers_traced(x: object) -> bool:
    """Whether torch.fx or torch.jit.trace is recording what modules do to ``x``.

    Then layers call their inner modules, which both can record, and do not look at values.
    """
    return traced() or isinstance(x, torch.fx.Proxy)


def is_plain_call() -> bool:
    """Whether a call runs eagerly and nothing else: not compiled, transformed, traced, recorded or observed.

    Takes about a microsecond.
    """
    return not (
        torch.compiler.is_compiling()
        or transformed()
        or torch._C._is_tracing()
        or torch._C._dispatch_tls_is_dispatch_key_included(_PRE_DISPATCH)
        or (torch._C._len_torch_dispatch_stack() and (recorded() or observed()))
    )


def backends() -> Mapping[str, BackendStatus]:
    """Every backend by name, fastest first, with whether it is available here, or why not."""
    return {
        b.name: BackendStatus(
            b.name, b.unavailable is None, b.unavailable, tuple(sorted(b.kernels))
        )
        for b in _BACKENDS.values()
    }
