"""Watches one forward pass: which op took which tensors, and what PyTorch computed between the ops."""

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
from effkernels.ops._define import defined
from effkernels.ops._steps import NETWORK, Network, step_flops, traced

# Their inner modules run together: those are named after the layer.
_LAYERS = (ConvBnAct, SqueezeExcite)


@dataclass(frozen=True)
class Row:
    """One layer's part of a forward pass.

    Attributes:
        name: the module whose parameters are taken (``stages.2.1``); where only some of its layers' are, those
            too (``stages.2.1.expand+depthwise``); empty where none is.
        op: of effkernels; or, joined by " + ", PyTorch's own.
        backend: that computes it: "cuda", "triton", "cpu", or "torch" for plain PyTorch.
        call: which call of an op, from 1; the steps of one call share it. None outside of the ops.
        in_shape, out_shape: of what goes in, and of the first tensor that comes out.
        dtype: of the former.
        bytes: every tensor that it takes, read once, and every one that it makes, written once.
        flops: two per multiply-add of convolutions and products, as ``torch.utils.flop_counter`` counts.
        why: it runs there.
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
    """All tensors in the arguments or results of an op, lists of them opened."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _shapes(values: Iterable[Any]) -> list[Any]:
    return [tuple(value.shape) if isinstance(value, Tensor) else value for value in values]


def _moved(taken: Sequence[Tensor], made: Sequence[Tensor]) -> int:
    """Bytes: a tensor that is taken twice, as a block's input with its residual, is read once."""
    return sum(t.nbytes for t in {id(t): t for t in taken}.values()) + sum(t.nbytes for t in made)


class _Names:
    """Finds the module that the parameters of a call belong to."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        state = [*model.named_parameters(), *model.named_buffers()]
        # By address: ops take views of parameters. Of tied ones the first name counts.
        self._modules = {t.data_ptr(): name.split(".")[:-1] for name, t in reversed(state)}
        self._modules.pop(0, None)  # where tensors without elements are
        # Of each module, those of its layers that hold any.
        self._layers: dict[str, dict[str, None]] = {}
        for name, _ in state:
            path = name.split(".")[:-1]
            for i, layer in enumerate(path):
                self._layers.setdefault(".".join(path[:i]), {})[layer] = None

    def known(self, tensor: Tensor) -> bool:
        """Whether it is a parameter or a buffer of the model."""
        return tensor.data_ptr() in self._modules

    def of(self, tensors: Iterable[Tensor], *, layers: bool = False) -> str | None:
        """The innermost module around the parameters among them; None where there is none.

        ``layers``: with those of its layers that hold them, where others hold some too.
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
        """Why no op computes what the module of this name does."""
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
        return "BatchNorm is in training mode" if any(m.training for m in norms) else outside


@dataclass
class _Plain:
    """What runs in plain PyTorch, gathered until another module's turn comes."""

    name: str | None = None
    ops: list[str] = field(default_factory=list)
    first: Tensor | None = None
    last: Tensor | None = None
    bytes: int = 0
    flops: int = 0


class Recorder(TorchDispatchMode):
    """Makes ``rows`` and ``notes`` of what runs while it is entered and watches :mod:`effkernels.dispatch`.

    No hook is needed, which would keep layers from running fused. PyTorch's own operators are seen as
    they are dispatched, those inside of an op's plain PyTorch form are counted with the op.
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
        """Run ``func``; note it down where it is PyTorch's own and computes or copies something."""
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        ours = func.namespace.startswith("effkernels")
        if not (self._inside or ours or _moves_nothing(func)):
            self._add_plain(func, args, kwargs, results)
        return results

    def _add_plain(self, func: Any, args: Any, kwargs: dict[str, Any], results: Any) -> None:
        taken, made = list(_tensors([*args, *kwargs.values()])), list(_tensors([results]))
        # BatchNorm counts its batches in an integer of 64 bits.
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
        """Make a row of what has run in plain PyTorch since the last one."""
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
    """Whether it makes a view, or memory without content."""
    aliases = [returned.alias_info for returned in func._schema.returns]
    view = any(alias is not None and not alias.is_write for alias in aliases)
    return view or func._overloadpacket.__name__.startswith(("empty", "new_empty"))


def _why(decision: Decision, *composites: Decision) -> str:
    """Why this backend: the refusals of faster ones, those of the op whose part it is first."""
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
        return f"{decision.backend} is asked for (use_backend or EFFKERNELS_BACKEND)"
    if decision.backend == "torch":
        return "no other backend serves this device, or has the op"
    return "the fastest backend takes it"
