"""What can compute the ops here, what does, and why; and the switch.

Backends register kernels for ops (:func:`register_kernel`). For each call the fastest available backend
that serves the device and accepts the arguments runs (:func:`choose`); plain PyTorch is always last.
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
_PROXY = torch._C._TorchDispatchModeKey.PROXY
_PRE_DISPATCH = torch._C.DispatchKey.PreDispatch


@dataclass(frozen=True)
class Kernel:
    """One op of one backend: ``run`` takes the op's schema arguments; ``rejects`` says why it cannot, or None.

    ``by_parts``: it calls ops, which choose for themselves.
    """

    run: Callable[..., Any]
    rejects: Accepts
    by_parts: bool = False


@dataclass
class Backend:
    """One way to compute the ops.

    ``unavailable`` is the reason why it cannot run here, or None. One that runs only ``on_request`` is for
    those who name it, never chosen for being available. A ``mistake`` is what is wrong with its settings: to
    choose it is an error.
    """

    name: str
    devices: tuple[str, ...]
    unavailable: str | None = None
    on_request: bool = False
    mistake: str | None = None
    kernels: dict[str, Kernel] = field(default_factory=dict)

    def serves(self, device_type: str) -> bool:
        """Whether tensors on devices of this type are its business."""
        return not self.devices or device_type in self.devices


@dataclass(frozen=True)
class BackendStatus:
    """What :func:`backends` tells of one backend."""

    name: str
    available: bool
    reason: str | None
    """Why it is not available; None where it is."""
    ops: tuple[str, ...]
    """Ops that it has kernels for. The torch backend computes all of them."""


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
        raise ValueError(f"{given_by}: no backend {name!r}; there are {', '.join(_BACKENDS)}")
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
    """One choice of :func:`choose`. ``run_by_parts``: parts of the op choose for themselves."""

    op: str
    backend: str
    refusals: tuple[tuple[str, str], ...]
    """Faster backends that serve the device, and why each did not take it."""
    forced: bool
    run_by_parts: bool


class Watcher(Protocol):
    """What :class:`watching` tells about the choices in its thread."""

    def chosen(
        self, decision: Decision, run: Callable[..., Any] | None
    ) -> Callable[..., Any] | None:
        """What is to be called in the place of ``run``."""

    def declined(self, op: str, reason: str) -> None:
        """``op`` was not asked for."""


class _Choice(threading.local):
    # Instance attributes, set for every thread: those are what torch.compile guards on, so that a
    # compiled function sees use_backend of its own thread. It follows neither a ContextVar nor a
    # class attribute.
    def __init__(self) -> None:
        self.name = _FROM_ENVIRONMENT
        self.fallback = True
        self.watcher: Watcher | None = None


_choice = _Choice()


class FallbackWarning(UserWarning):
    """Something runs slower than it could: on another backend than asked for, or without compiled kernels."""


# Frames of these are not the user's: a warning is about who called them.
_NOT_THE_USER = tuple(str(Path(file).parent) for file in (__file__, torch.__file__))
_warned: set[tuple[str, str, int]] = set()


def warn_once(message: str) -> None:
    """Warn with :class:`FallbackWarning`, once for each place in the user's code that comes to it."""
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THE_USER):
        depth, frame = depth + 1, frame.f_back
    place = (message, frame.f_code.co_filename, frame.f_lineno)
    if place not in _warned:
        warnings.warn(message, FallbackWarning, stacklevel=depth)
        _warned.add(place)  # not where the warning is an error: it would be one only once


# torch.compile runs it while tracing and leaves no trace of it. torch.compiler.assume_constant_result
# sets this attribute and no more, but imports the compiler: over a second of our import.
warn_once._dynamo_marked_constant = True  # type: ignore[attr-defined]


class use_backend:  # noqa: N801 - used like a function
    """Run the ops on one backend inside a ``with`` block, in this thread; also inside compiled functions.

    Args:
        name: "cuda", "triton", "cpu", "torch", or "auto" for the fastest that accepts the arguments.
        fallback: where the backend lacks an op or rejects its arguments, run the op in plain PyTorch and
            warn with the reason (:class:`FallbackWarning`), once a place; if False, raise instead.

    Raises:
        ValueError: no such backend, or it is not available here (the message says why).
        NotImplementedError: from an op, with ``fallback=False``, that the backend does not compute.

    The environment variable ``EFFKERNELS_BACKEND``, read at import, sets the same from outside.
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
    backend: str, op: str, run: Callable[..., Any], rejects: Accepts, *, by_parts: bool = False
) -> None:
    """Let ``backend`` compute ``op``: ``run`` and ``rejects`` take the arguments of the op's schema.

    ``by_parts``: ``run`` calls ops that choose for themselves.
    """
    _BACKENDS[backend].kernels[op] = Kernel(run, rejects, by_parts)


def mark_available(backend: str) -> None:
    """Say that ``backend`` can run here. Its kernels are considered from now on."""
    _BACKENDS[backend].unavailable = None


def restrict_to_requests(backend: str, devices: tuple[str, ...]) -> None:
    """Let ``backend`` run on these types of devices, and only where ``use_backend`` or the environment names it."""
    _BACKENDS[backend].devices = devices
    _BACKENDS[backend].on_request = True


def mark_mistaken(backend: str, mistake: str) -> None:
    """Let choosing ``backend`` be a ValueError of this message: its settings are wrong."""
    _BACKENDS[backend].unavailable = _BACKENDS[backend].mistake = mistake


def mark_unavailable(backend: str, reason: str) -> None:
    """Say why ``backend`` cannot run here."""
    _BACKENDS[backend].unavailable = reason


class watching:  # noqa: N801 - used like a function
    """Tell ``watcher`` of every choice in this thread, within a ``with`` block. Not for compiled functions."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __enter__(self) -> None:
        self._previous = _choice.watcher
        _choice.watcher = self._watcher

    def __exit__(self, *exception: object) -> None:
        _choice.watcher = self._previous


def watched() -> bool:
    """Whether somebody is told of the choices in this thread."""
    return _choice.watcher is not None


def asked_for() -> tuple[str | None, bool]:
    """The backend that ``use_backend`` or the environment asks for in this thread, or None; whether others may do."""
    return _choice.name, _choice.fallback


def choose(
    op: str,
    device_type: str,
    arguments: tuple[Any, ...],
    otherwise: Callable[..., Any] | None = None,
    *,
    composite: bool = False,
) -> Callable[..., Any] | None:
    """The kernel to run ``op`` with; ``otherwise`` where no backend takes it.

    Nothing is logged or raised where a backend lacks a ``composite`` op or rejects its arguments: its parts
    choose for themselves.

    Raises:
        ValueError: ``EFFKERNELS_BACKEND`` names no backend, or one that is not available; or the settings of a
            backend for this device are mistaken.
        NotImplementedError: the backend forced with ``fallback=False`` does not compute this.
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
        reason = _refusal(backend, op, device_type, arguments)
        if reason is None:
            kernel = backend.kernels[op]
            taken, run, by_parts = backend.name, kernel.run, kernel.by_parts
            break
        refusals.append((backend.name, reason))
        if composite:
            continue
        message = f"{op}: not on the {backend.name} backend: {reason}"
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


def decline(op: str, reason: str) -> None:
    """Let whoever watches know why ``op`` is not even asked for."""
    if _choice.watcher is not None:
        _choice.watcher.declined(op, reason)


def _refusal(backend: Backend, op: str, device_type: str, arguments: tuple[Any, ...]) -> str | None:
    kernel = backend.kernels.get(op)
    if kernel is None:
        return "it has no kernel for this op"
    if not backend.serves(device_type):
        return f"it serves {' and '.join(backend.devices)} tensors, not {device_type}"
    return kernel.rejects(*arguments)


def autocast_enabled(device_type: str) -> bool:
    """Whether ``torch.autocast`` is on for this type of device. The meta device has none, and raises if asked."""
    return device_type != "meta" and torch.is_autocast_enabled(device_type)


def transformed() -> bool:
    """Whether torch.func transforms the calls here, or tensors may have tangents: forward-mode derivatives, which
    no kernel computes. Either needs PyTorch's own operators.
    """
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


# torch.compile asks while it traces, as for _log_once, when torch.func's transforms are under way as they will be
# when the graph runs. It guards on them itself.
transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]


def traced() -> bool:
    """Whether torch.jit.trace writes the calls down, which it can of PyTorch's own operators alone."""
    return torch._C._is_tracing()


def recorded() -> bool:
    """Whether ``make_fx`` writes the calls down: it is to find the public ops, not those of a backend."""
    return torch._C._get_dispatch_mode(
        _PROXY
    ) is not None or torch._C._dispatch_tls_is_dispatch_key_included(_PRE_DISPATCH)


# As for transformed.
traced._dynamo_marked_constant = True  # type: ignore[attr-defined]


def observed() -> bool:
    """Whether a ``TorchDispatchMode`` looks on that is not PyTorch's, such as ptflops' counter of FLOPs.

    Such modes know PyTorch's own operators, and take another op for one that costs nothing. A mode that wants to see
    the ops of effkernels says so by an attribute, ``sees_effkernels_ops = True``.
    """
    if torch._C._len_torch_dispatch_stack() == 0:
        return False
    return any(not _knows_our_ops(mode) for mode in _get_current_dispatch_mode_stack())


def _knows_our_ops(mode: object) -> bool:
    package = type(mode).__module__.partition(".")[0]
    return package in ("torch", "effkernels") or getattr(mode, "sees_effkernels_ops", False)


def layers_traced(x: object) -> bool:
    """Whether torch.fx or torch.jit.trace writes down what modules do to ``x``.

    Then layers call their inner modules, which either knows, and values are not looked at.
    """
    return traced() or isinstance(x, torch.fx.Proxy)


def merely_runs() -> bool:
    """Whether the calls here are just run: not compiled, transformed, traced, recorded or observed. About 1 us."""
    return not (
        torch.compiler.is_compiling() or transformed() or traced() or recorded() or observed()
    )


def backends() -> Mapping[str, BackendStatus]:
    """Every backend by name, fastest first: whether it is available here, or why not."""
    return {
        b.name: BackendStatus(
            b.name, b.unavailable is None, b.unavailable, tuple(sorted(b.kernels))
        )
        for b in _BACKENDS.values()
    }
