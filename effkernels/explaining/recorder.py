"""Records one forward pass: which op took which tensors, and what PyTorch computed between the ops."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from effkernels.dispatch import Decision
from effkernels.nn import ConvBnAct, SqueezeExcite
from effkernels.nn._plain import any_global_hook, has_hooks
from effkernels.nn.conv_bn_act import WIDE_CHANNELS
from effkernels.ops._define import defined
from effkernels.ops._steps import NETWORK, Network, step_flops, traced

# The inner modules of these layers run together, so their rows are named after the layer.
_LAYERS = (ConvBnAct, SqueezeExcite)


@dataclass(frozen=True)
class Row:
    """One layer's share of a forward pass.

    Attributes:
        name: the module that owns the parameters (``stages.2.1``); where they are only some of its layers',
            those layers too (``stages.2.1.expand+depthwise``); empty if the call takes no parameters.
        op: the effkernels op, or the names of PyTorch's own operators, joined by " + ".
        backend: where it ran: "cuda", "triton", "cpu", or "torch" for plain PyTorch.
        call: number of the op call, from 1; the steps of one call share it. None outside of the ops.
        in_shape, out_shape: of the input and of the first output.
        dtype: of the input.
        bytes: each input tensor, read once, plus each output tensor, written once.
        flops: two per multiply-add of convolutions and products, as ``torch.utils.flop_counter`` counts.
        why: why it ran on this backend.
    """

    name: str
    op: str
    backend: str
    call: int | None
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    dtype: torch.dtype
    bytes: int
    flops: int
    why: str


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors among the arguments or results of an op, including those in lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _shapes(values: Iterable[Any]) -> list[Any]:
    return [tuple(value.shape) if isinstance(value, Tensor) else value for value in values]


def _moved(taken: Sequence[Tensor], made: Sequence[Tensor]) -> int:
    """Bytes read and written. A tensor passed twice, as a block's input that is also its residual, is read
    once.
    """
    return sum(t.nbytes for t in {id(t): t for t in taken}.values()) + sum(t.nbytes for t in made)


class _Names:
    """Finds the module that the parameters of a call belong to."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        state = [*model.named_parameters(), *model.named_buffers()]
        # Found by address, because ops take views of parameters. For tied parameters the first name counts.
        self._modules = {t.data_ptr(): name.split(".")[:-1] for name, t in reversed(state)}
        self._modules.pop(0, None)  # the address of tensors without elements
        # For each module, those of its layers that have parameters.
        self._layers: dict[str, dict[str, None]] = {}
        for name, _ in state:
            path = name.split(".")[:-1]
            for i, layer in enumerate(path):
                self._layers.setdefault(".".join(path[:i]), {})[layer] = None

    def known(self, tensor: Tensor) -> bool:
        """Whether the tensor is a parameter or a buffer of the model."""
        return tensor.data_ptr() in self._modules

    def of(self, tensors: Iterable[Tensor], *, layers: bool = False) -> str | None:
        """The innermost module that owns the parameters among ``tensors``; None if there are none.

        ``layers``: append the layers that own them, if the module has other layers with parameters.
        """
        paths = [self._modules[t.data_ptr()] for t in tensors if self.known(t)]
        if not paths:
            return None
        levels = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False))
        path = [level[0] for level in levels]
        if path and isinstance(self._model.get_submodule(".".join(path[:-1])), _LAYERS):
            path.pop()
        elif layers and all(len(p) > len(path) for p in paths):
            holding = self._layers[".".join(path)]
            taken = {p[len(path)] for p in paths}
            if len(taken) < len(holding):
                path.append("+".join(layer for layer in holding if layer in taken))
        return ".".join(path) or type(self._model).__name__

    def why_plain(self, name: str | None) -> str:
        """Why the module of this name was not computed by an op."""
        outside = "PyTorch's own, around the ops"
        if name is None or name == type(self._model).__name__:
            return outside
        modules = list(self._model.get_submodule(name).named_modules(prefix=name))
        for path, module in modules:
            if has_hooks(module):
                return f"{path} has a hook"
        if any_global_hook():
            return "there are hooks for all modules"
        norms = [m for _, m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if any(m.training for m in norms):
            return "BatchNorm is in training mode"
        layer = modules[0][1]
        if isinstance(layer, ConvBnAct) and layer.fusible() and layer.wide:
            return f"dense convolutions of {WIDE_CHANNELS} or more channels are left to PyTorch"
        return outside


@dataclass
class _Plain:
    """Operators that ran in plain PyTorch, collected until another module's turn comes."""

    name: str | None = None
    ops: list[str] = field(default_factory=list)
    first: Tensor | None = None
    last: Tensor | None = None
    bytes: int = 0
    flops: int = 0


class Recorder(TorchDispatchMode):
    """Collects ``rows`` and ``notes`` while it is active and watches :mod:`effkernels.dispatch`.

    It uses no hooks, because those would keep layers from running fused. PyTorch's own operators are seen as
    they are dispatched; those inside an op's reference are counted with the op.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self._names = _Names(model)
        self._plain = _Plain()
        self._calls = 0
        self._inside = False
        self._composites: list[Decision] = []

    def declined(self, op: str, reason: str) -> None:
        """See :class:`effkernels.dispatch.Watcher`."""
        self.notes.append(f"layer by layer, not by one call of {op}: {reason}")

    def chosen(
        self, decision: Decision, run: Callable[..., Any] | None
    ) -> Callable[..., Any] | None:
        """See :class:`effkernels.dispatch.Watcher`."""
        if run is None:
            self.declined(decision.op, _why(decision))
            return None
        if self._inside:
            return run

        def recorded(*arguments: Any) -> Any:
            self.finish()
            if decision.run_by_parts:
                self._composites.append(decision)
                try:
                    return run(*arguments)
                finally:
                    self._composites.pop()
            self._inside = True
            try:
                results = run(*arguments)
            finally:
                self._inside = False
            self._calls += 1
            self._add_call(decision, arguments, list(_tensors([results])))
            return results

        return recorded

    def _add_call(self, decision: Decision, arguments: tuple[Any, ...], made: list[Tensor]) -> None:
        why = _why(decision, *self._composites)
        if decision.op == NETWORK:
            self._add_steps(decision.backend, f"one call of {NETWORK}: {why}", *arguments)
            return
        flops = defined(decision.op).flops(*_shapes(arguments))
        self._add(decision.op, decision.backend, list(_tensors(arguments)), made, flops, why)

    def _add_steps(
        self, backend: str, why: str, x: Tensor, tensors: Sequence[Tensor], network: Network
    ) -> None:
        shapes = [tensor.shape for tensor in network.with_matrices(tensors)]
        images = torch.empty_like(x, device="meta")
        for step, before, taken, after in traced(images, tensors, network):
            flops = step_flops(step, before.shape, shapes)
            self._add(step.op, backend, [before, *taken], [after], flops, why)

    def _add(
        self,
        op: str,
        backend: str,
        taken: list[Tensor],
        made: list[Tensor],
        flops: int,
        why: str,
    ) -> None:
        self.rows.append(
            Row(
                name=self._names.of(taken, layers=True) or "",
                op=op,
                backend=backend,
                call=self._calls,
                in_shape=tuple(taken[0].shape),
                out_shape=tuple(made[0].shape),
                dtype=taken[0].dtype,
                bytes=_moved(taken, made),
                flops=flops,
                why=why,
            )
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func``; record it if it is PyTorch's own operator and computes or copies something."""
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        ours = func.namespace.startswith("effkernels")
        if not (self._inside or ours or _moves_nothing(func)):
            self._add_plain(func, args, kwargs, results)
        return results

    def _add_plain(self, func: Any, args: Any, kwargs: dict[str, Any], results: Any) -> None:
        taken, made = list(_tensors([*args, *kwargs.values()])), list(_tensors([results]))
        # BatchNorm counts batches in an int64 buffer: not a layer's result.
        if (
            not taken
            or not made
            or not (taken[0].is_floating_point() or taken[0].dtype == torch.uint8)
        ):
            return
        name = self._names.of(taken)
        if name is not None and self._plain.name not in (None, name):
            self.finish()
        plain, packet = self._plain, func._overloadpacket
        plain.name = plain.name or name
        plain.ops.append(packet.__name__)
        if plain.first is None:
            plain.first = next((t for t in taken if not self._names.known(t)), taken[0])
        plain.last = made[0]
        plain.bytes += _moved(taken, made)
        if packet in flop_registry:
            plain.flops += flop_registry[packet](*args, **kwargs, out_val=results)

    def finish(self) -> None:
        """Turn the operators collected since the last row into a row."""
        plain, self._plain = self._plain, _Plain()
        if plain.first is None or plain.last is None:
            return
        self.rows.append(
            Row(
                name=plain.name or "",
                op=" + ".join(plain.ops),
                backend="torch",
                call=None,
                in_shape=tuple(plain.first.shape),
                out_shape=tuple(plain.last.shape),
                dtype=plain.first.dtype,
                bytes=plain.bytes,
                flops=plain.flops,
                why=self._names.why_plain(plain.name),
            )
        )


def _moves_nothing(func: Any) -> bool:
    """Whether it only makes a view, or allocates memory without filling it."""
    aliases = [returned.alias_info for returned in func._schema.returns]
    view = any(alias is not None and not alias.is_write for alias in aliases)
    return view or func._overloadpacket.__name__.startswith(("empty", "new_empty"))


def _why(decision: Decision, *composites: Decision) -> str:
    """Why this backend: why faster ones refused, first of the composite op that called this one."""
    own = list(decision.refusals)
    around = [
        f"{composite.op} not on {backend}: {reason}"
        for composite in composites
        for backend, reason in composite.refusals
        if (backend, reason) not in own
    ]
    reasons = [*around, *(f"not on {backend}: {reason}" for backend, reason in own)]
    if reasons:
        return "; ".join(reasons)
    if decision.forced:
        return f"{decision.backend} was requested (use_backend or EFFKERNELS_BACKEND)"
    if decision.backend == "torch":
        return "no other backend supports this device and has the op"
    return "the fastest backend takes it"
