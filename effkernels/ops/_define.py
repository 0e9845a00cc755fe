"""Defines an op: one schema, shared by the public op and the private op of every backend.

``define`` gives ``torch.ops.effkernels.<name>`` its schema, its fake (exact strides), its derivatives, its
decomposition into plain operators and its FLOP formula. :func:`define_private` gives a backend's compiled op the
same, except for the decomposition. So all of them exist whether or not anything was compiled.

Graphs contain only the public ops, never those of a backend: a graph captured on one machine can run on another,
or be decomposed there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from effkernels import dispatch
from effkernels.ops._derivatives import autograd_kernel

_NAMESPACE = "effkernels"
_libraries: dict[str, torch.library.Library] = {}
_defined: dict[str, Op] = {}


@dataclass
class Op:
    """The definition of one op. All functions take the arguments of ``schema``, in order; ``flops`` takes shapes
    in place of tensors. ``composed`` computes the op from other ops, for backends that lack it. Ops that
    are not ``differentiable`` raise where a gradient would be needed."""

    name: str
    schema: str
    reference: Callable[..., Any]
    fake: Callable[..., Any]
    flops: Callable[..., int]
    composed: Callable[..., Any] | None = None
    differentiable: bool = True
    public: Any = field(default=None, init=False)
    """``torch.ops.effkernels.<name>.default``, once it is defined."""

    def __call__(self, *arguments: Any) -> Any:
        """Run on the chosen backend, or be recorded. ``arguments`` are checked, in the order of the schema."""
        if dispatch.transformed():
            return self.plain(*arguments)
        if torch.compiler.is_compiling():
            return self._compiled(arguments)
        if dispatch.traced() or dispatch.observed():
            return self.plain(*arguments)
        if dispatch.recorded():
            return self.public(*arguments)
        return self.run(*arguments)

    def run(self, *arguments: Any) -> Any:
        """Run on the chosen backend, immediately."""
        device_type = arguments[0].device.type
        composite = self.composed is not None
        otherwise = self.composed or self.reference
        run = dispatch.choose(self.name, device_type, arguments, otherwise, composite=composite)
        assert run is not None
        return _without_autocast(device_type, run, arguments)

    def plain(self, *arguments: Any) -> Any:
        """Run in plain operators, which PyTorch can transform, record and differentiate."""
        return _without_autocast(arguments[0].device.type, self.reference, arguments)

    def _compiled(self, arguments: tuple[Any, ...]) -> Any:
        """What goes into a graph: the public op, which chooses its backend when the graph runs; or plain operators.

        torch.compile can fuse plain operators itself, so it gets them if no kernel would run here. An exported graph
        gets them only on request (``use_backend("torch")``), because it may run where there are kernels.
        """
        if torch.compiler.is_exporting():
            wanted, _ = dispatch.requested_backend()
            return (self.plain if wanted == "torch" else self.public)(*arguments)
        device_type = arguments[0].device.type
        composite = self.composed is not None
        run = dispatch.choose(self.name, device_type, arguments, composite=composite)
        if run is not None:
            return self.public(*arguments)
        return _without_autocast(device_type, self.composed or self.reference, arguments)


def _without_autocast(device_type: str, run: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    if not dispatch.autocast_enabled(device_type):
        return run(*arguments)
    # Casting is done (see _arguments.cast); autocast would also cast gates and BN vectors to 16 bits.
    with torch.autocast(device_type, enabled=False):
        return run(*arguments)


def nhwc_empty(like: Tensor, size: Sequence[int]) -> Tensor:
    """An uninitialised channels_last tensor, for the result of a kernel."""
    return torch.empty(
        tuple(size), dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _library(namespace: str) -> torch.library.Library:
    if namespace not in _libraries:
        _libraries[namespace] = torch.library.Library(namespace, "FRAGMENT")  # type: ignore[no-untyped-call]
    return _libraries[namespace]


def define(op: Op) -> Op:
    """Register the public op ``torch.ops.effkernels.<name>``, which chooses its backend at run time."""

    def run(*arguments: Any) -> Any:
        return _exact_strides(op.run(*arguments))

    library, op.public = _register(op, _NAMESPACE)
    library.impl(op.name, run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    _let_export_decompose(op)
    return declare(op)


def declare(op: Op) -> Op:
    """Make the definition known to backends, without a public op."""
    _defined[op.name] = op
    return op


def defined(name: str) -> Op:
    """The definition of a public op, for which a backend registers a kernel."""
    return _defined[name]


def define_private(name: str, backend: str) -> Callable[..., Any]:
    """Register ``torch.ops.effkernels_<backend>.<name>``, with the same definition, and return it.

    The backend implements it for its dispatch key and passes it to :func:`effkernels.dispatch.register_kernel`.
    """
    _, overload = _register(defined(name), f"{_NAMESPACE}_{backend}")
    return overload


def implement_private(name: str, backend: str, key: str, run: Callable[..., Any]) -> None:
    """Implement a backend's private op for a dispatch key by ``run``; compiled modules do this themselves."""
    _library(f"{_NAMESPACE}_{backend}").impl(name, run, key)  # type: ignore[no-untyped-call]


def _register(op: Op, namespace: str) -> tuple[torch.library.Library, Callable[..., Any]]:
    library, name = _library(namespace), f"{namespace}::{op.name}"
    library.define(  # type: ignore[no-untyped-call]
        op.name + op.schema, tags=(torch.Tag.pt2_compliant_tag,)
    )
    packet = getattr(getattr(torch.ops, namespace), op.name)
    overload: Callable[..., Any] = packet.default
    torch.library.register_fake(name, op.fake, lib=library)
    library.impl(op.name, autograd_kernel(op, overload), "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
    # Before the transforms of torch.func, so that they see the plain operators.
    library.impl(op.name, op.plain, "FuncTorchDynamicLayerFrontMode")  # type: ignore[no-untyped-call]

    def flops(*arguments: Any, out_shape: Any = None, **named: Any) -> int:
        return op.flops(*arguments)

    register_flop_formula(packet)(flops)
    return library, overload


def _let_export_decompose(op: Op) -> None:
    """Let ``ExportedProgram.run_decompositions`` and ``torch.onnx.export`` replace the op by plain operators.

    Their default table of decompositions contains PyTorch's own operators and those with a composite kernel. So this
    registers a composite kernel, which declines wherever else PyTorch tries to decompose operators (torch.compile,
    make_fx), so that the op stays whole there.
    """
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    kernels = op.public.py_kernels

    def decompose(*arguments: Any) -> Any:
        # While exporting, PyTorch replaces the autograd kernels of ops that it keeps or decomposes: an op that it
        # keeps has another composite kernel then.
        exporting = torch._C.DispatchKey.AutogradCPU in kernels
        if exporting and kernels.get(key) is decompose:
            return op.plain(*arguments)
        _withdraw_from_inductor(op.public)
        return NotImplemented

    op.public.py_impl(key)(decompose)


def _withdraw_from_inductor(overload: Any) -> None:
    """Remove an op from Inductor's decompositions, which include those of export.

    Inductor calls an op that stays whole in a graph only if it has no decomposition for it, and it checks that
    after it has tried to decompose the op.
    """
    module: Any = sys.modules.get("torch._inductor.decomposition")
    if module is not None and module.decompositions.pop(overload, None) is not None:
        module.fast_random_decomps.cache_clear()  # it caches a copy of them


def _exact_strides(result: Any) -> Any:
    """Set the fake's strides in dimensions of size 1, for which PyTorch allows any stride."""
    if isinstance(result, tuple):
        return tuple(_exact_strides(part) for part in result)
    if result.dim() != 4:
        return result.contiguous()
    _, channels, height, width = result.shape
    c = max(channels, 1)
    exact = (max(height, 1) * max(width, 1) * c, 1, max(width, 1) * c, c)
    if result.stride() == exact:
        return result
    return result.contiguous(memory_format=torch.channels_last).as_strided(result.shape, exact)
