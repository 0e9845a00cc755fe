"""The plan of one model: its steps, the kernels that run them, and whether the model is still the same.

What is kept between calls is looked at again at each: modules, their classes, attributes and hooks, and the kind of the
tensors. Their contents and their memory are read at each call, so weights may change in place, or be swapped.

It is looked at in two ways. Compiled code tells in some ten microseconds whether all objects are the same as at the
last call (:mod:`effkernels.unchanged`); then the steps run with the tensors that were bound to them. Otherwise Python
looks at what matters, and takes the tensors from the modules. Where these are the same twice, they are bound.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from effkernels import dispatch, unchanged
from effkernels.models.launches import Recording
from effkernels.models.parts import Parts, Snapshot
from effkernels.models.steps import Misfit, steps_of, tensor_slots
from effkernels.ops._steps import NETWORK, Network

_MOST_SHAPES = 64  # of images, whose steps and kernels are kept
_KIND = operator.attrgetter("dtype", "device", "shape")
_requires_grad = operator.attrgetter("requires_grad")

# What they return is a tensor, or a list of feature maps.
Run = Callable[[Tensor, Sequence[Tensor]], Any]
Bound = Callable[[Tensor], Any]


class _Chosen(NamedTuple):
    """What runs a network.

    Attributes:
        run: takes images and the network's tensors.
        bind: takes the tensors, for calls with images alone.
        what: is bound. Images of several shapes may have it in common.
    """

    run: Run
    bind: Callable[[Sequence[Tensor]], Bound]
    what: Any


class _Decided:
    """What was decided for tensors of some dtypes, devices and shapes."""

    def __init__(self) -> None:
        # By the shape of an image, and whether the stem normalises it.
        self.networks: dict[tuple[torch.Size, bool], Network | str] = {}
        # By all that decides about kernels.
        self.runs: dict[Any, _Chosen | None] = {}


class _Watch:
    """What tells that a plan's modules and tensors are the very same as when it was made; and what may run then."""

    def __init__(self, objects: unchanged.Objects) -> None:
        self.objects = objects
        # Tensors that are held, once it is certain which; and what was decided for such.
        self.tensors: list[Tensor] = []
        self.holder: unchanged.Holder | None = None
        self.decided: _Decided | None = None
        # By all that decides about kernels; and by what is bound.
        self.ready: dict[Any, Bound] = {}
        self.bound: dict[Any, Bound] = {}

    def same(self) -> bool:
        """Whether objects are the same, and the tensors, once they are held, of the same kinds."""
        return self.objects.same() and (self.holder is None or self.holder.same_kinds())

    def bind(self, key: Any, chosen: _Chosen, tensors: list[Tensor]) -> None:
        """Let this run images of that kind, by :meth:`Plan.again`."""
        if len(self.ready) >= _MOST_SHAPES:
            self.ready.clear()
            self.bound.clear()
        if chosen.what not in self.bound:
            self.bound[chosen.what] = chosen.bind(tensors)
        self.ready[key] = self.bound[chosen.what]


class Plan:
    """How one classifier runs, as it was when it was last looked at."""

    def __init__(self, model: nn.Module, parts: Parts, taken: Sequence[int] | None = None) -> None:
        """``taken``: the steps whose results are wanted, feature maps; None for logits or features of a classifier."""
        self.parts = parts
        self._taken = taken
        self.stages: Sequence[int] | None = None  # whose maps are taken
        if taken is None:
            self.snapshot = Snapshot(model, parts.modules)
        else:
            self.snapshot = Snapshot(model, parts.modules, ())
        slots = tensor_slots(parts)
        absent = [slot for slot in slots.values() if slot[0][slot[1]] is None]
        self._absent_dicts = [values for values, _ in absent]
        self._absent_names = [name for _, name in absent]
        present = {path: slot for path, slot in slots.items() if slot[0][slot[1]] is not None}
        self._present = list(present)
        self._dicts = [values for values, _ in present.values()]
        self._names = [name for _, name in present.values()]
        self._is_weight = [values[name].dim() > 1 for values, name in present.values()]
        self._memory: list[Any] = []
        self._kinds: list[Any] = []
        self._decided = _Decided()
        self._last: list[Any] = []  # tensors of the last call
        self._settled = False  # they were those of the call before, too
        self._watch: _Watch | None = None

    def again(self, x: Tensor) -> Any:
        """What :meth:`run` makes, where nothing has changed since it was bound; else None."""
        watch = self._watch
        if watch is None or dispatch.watched():
            return None
        run = watch.ready.get(_key(x))
        if (
            run is None
            or torch._C._len_torch_dispatch_stack()
            or (torch._C._is_any_autocast_enabled() and dispatch.autocast_enabled(x.device.type))
            or not watch.same()
            or wants_gradient(x, watch.tensors)
        ):
            return None
        return run(x)

    def look(self) -> None:
        """Before the modules are looked at: what changes from here on is seen at the next call."""
        watch = self._watch
        if watch is not None and not watch.same():
            watch = self._watch = None
            self._settled = False
            self._memory = []  # what is there now may lie where the other lay
        if watch is None and self._settled:
            objects = self.snapshot.objects(self._last)
            self._watch = None if objects is None else _Watch(objects)

    def let_go(self) -> None:
        """Keep no tensor alive."""
        self._watch, self._last, self._settled = None, [], False

    def _settle(self, tensors: list[Any]) -> None:
        """Hold the tensors if they are those of the last call: not where they come and go."""
        self._settled = _the_same(tensors, self._last)
        watch = self._watch
        if not self._settled:
            self._watch, self._last, self._settled = None, tensors, not self._last
        elif watch is not None and watch.holder is None and watch.objects.same():
            watch.tensors, watch.holder = tensors, unchanged.hold(tensors)

    def tensors(self) -> list[Any] | None:
        """The modules' tensors, in order; None if one is gone, or one that was missing is there now."""
        try:
            absent = list(map(operator.getitem, self._absent_dicts, self._absent_names))
            tensors = list(map(operator.getitem, self._dicts, self._names))
        except KeyError:
            return None
        missing = any(map(operator.is_, tensors, itertools.repeat(None)))
        return None if missing or absent.count(None) != len(absent) else tensors

    def look_at(self, tensors: list[Tensor]) -> tuple[_Decided, _Watch | None]:
        """What was decided for tensors of these dtypes, devices and shapes: nothing yet if these have changed.

        And what may be bound to the tensors; None unless they are certainly those that it holds.
        """
        if unchanged.can_tell():
            self._settle(tensors)
        watch = self._watch
        if watch is not None and not watch.same():
            watch = self._watch = None
            self._memory = []
        # What moves or is cast lies elsewhere; what is cut in place has fewer elements. Vectors are checked by kernels.
        weights = itertools.compress(tensors, self._is_weight)
        memory = [*map(Tensor.data_ptr, tensors), *map(Tensor.numel, weights)]
        if memory != self._memory:
            kinds = list(map(_KIND, tensors))
            if kinds != self._kinds:
                self._decided = _Decided()
            self._memory, self._kinds = memory, kinds
        decided = self._decided
        if watch is None or watch.holder is None or not _the_same(tensors, watch.tensors):
            return decided, None
        if watch.decided is None:
            watch.decided = decided
        return decided, watch if watch.decided is decided else None

    def network(
        self, x: Tensor, tensors: list[Tensor], normed: bool, decided: _Decided | None = None
    ) -> Network | str:
        """The steps for images of this size; or why the ops do not take the layers' tensors."""
        networks = (decided or self._decided).networks
        key = (x.shape[1:], normed)
        if key not in networks:
            if len(networks) >= _MOST_SHAPES:
                networks.clear()
            named = dict(zip(self._present, tensors, strict=False))
            try:
                networks[key] = steps_of(self.parts, named, x, normed, self._taken or ())
            except Misfit as misfit:
                networks[key] = str(misfit)
        return networks[key]

    def run(self, x: Tensor, tensors: list[Tensor], norm: list[Tensor]) -> Any:
        """What the steps make of ``x``. None where no backend computes networks; or why the layers have to.

        Args:
            x: images.
            tensors: those of the modules.
            norm: what the images are normalised with, if they are.

        Returns:
            A tensor, or the list of feature maps that are taken.
        """
        decided, watch = self.look_at(tensors)
        given, key = tensors + norm, _key(x)
        if key in decided.runs and not dispatch.watched():
            chosen = decided.runs[key]
            if chosen is None:
                return None
            if watch is not None:
                watch.bind(key, chosen, given)
            return chosen.run(x, given)
        network = self.network(x, tensors, bool(norm), decided)
        if isinstance(network, str):
            return network
        if dispatch.watched():
            kernel = _choose(x, given, network)
            return None if kernel is None else kernel(x, given, network)
        if len(decided.runs) >= _MOST_SHAPES:
            decided.runs.clear()
        y, decided.runs[key] = _first_run(x, given, network)
        return y


def _the_same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def wants_gradient(x: Tensor, tensors: list[Tensor]) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or any(map(_requires_grad, tensors)))


def _key(x: Tensor) -> Any:
    """All that decides about kernels, beside the model."""
    return x.shape, x.dtype, x.device, dispatch.requested_backend()


def _choose(x: Tensor, tensors: Sequence[Tensor], network: Network) -> Callable[..., Any] | None:
    arguments = (x, tensors, network)
    return dispatch.choose(NETWORK, x.device.type, arguments, composite=True)


def _first_run(x: Tensor, tensors: list[Tensor], network: Network) -> tuple[Any, _Chosen | None]:
    """Run once, noting which kernels were chosen; return the result and what calls them directly."""
    recording = Recording()
    with dispatch.watching(recording):
        kernel = _choose(x, tensors, network)
        decision = recording.network_decision
        if kernel is None or decision is None:
            return None, None

        def run(x: Tensor, tensors: Sequence[Tensor]) -> Any:
            return kernel(x, tensors, network)

        if not decision.run_by_parts:

            def bind(tensors: Sequence[Tensor]) -> Bound:
                bound = dispatch.bind(decision.backend, NETWORK, tensors, network)
                return _given(run, tensors) if bound is None else bound

            return run(x, tensors), _Chosen(run, bind, (decision.backend, network))
        y, launches = recording.run(x, tensors, network)
    calls = run if launches is None else launches.run
    return y, _Chosen(calls, lambda tensors: _given(calls, tensors), calls)


def _given(run: Run, tensors: Sequence[Tensor]) -> Bound:
    """``run`` with these tensors each time."""
    return lambda x: run(x, tensors)
