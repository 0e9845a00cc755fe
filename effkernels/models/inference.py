"""A classifier's inference plan: the ops that it calls, and which backend runs each, found once.

Calling layer by layer costs as much as small networks take. Where :func:`effkernels.models.parts.plain_parts` finds
nothing but what the ops compute, a classifier's pass is a list of steps (:class:`effkernels.ops._steps.Network`), which
runs by one kernel of a backend that has one for whole networks, and else as the list of the steps' own kernels
(:class:`effkernels.models.launches.Launches`).

What is kept between calls is looked at again at each: modules, their classes, attributes and hooks, and the kind of the
tensors. Tensors themselves are taken from the modules at each call, so weights may change in place, or be swapped.
"""

from __future__ import annotations

import itertools
import operator
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effkernels import dispatch
from effkernels.models.launches import Recording
from effkernels.models.parts import Parts, Snapshot, plain_parts
from effkernels.models.steps import Misfit, steps_of, tensor_slots
from effkernels.ops._steps import NETWORK, Network

_TENSORS = frozenset((Tensor, nn.Parameter))
_DTYPES = frozenset((torch.float32, torch.bfloat16, torch.float16))
_MOST_SHAPES = 64  # of images, whose steps and kernels are kept
_KIND = operator.attrgetter("dtype", "device", "shape")
_requires_grad = operator.attrgetter("requires_grad")

Run = Callable[[Tensor, Sequence[Tensor]], Tensor]


class Plan:
    """How one classifier runs, as it was when it was last looked at."""

    def __init__(self, model: nn.Module, parts: Parts) -> None:
        self.parts = parts
        self.snapshot = Snapshot(model, parts.modules)
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
        # By the shape of an image, and whether the stem normalises it.
        self._networks: dict[tuple[torch.Size, bool], Network | str] = {}
        # By all that decides about kernels.
        self._runs: dict[Any, Run | None] = {}

    def tensors(self) -> list[Any] | None:
        """Those of the modules, in order; None where others are there, or none are, than when they were looked at."""
        try:
            absent = list(map(operator.getitem, self._absent_dicts, self._absent_names))
            tensors = list(map(operator.getitem, self._dicts, self._names))
        except KeyError:
            return None
        missing = any(map(operator.is_, tensors, itertools.repeat(None)))
        return None if missing or absent.count(None) != len(absent) else tensors

    def look_at(self, tensors: list[Tensor]) -> None:
        """Forget what was decided for tensors of other dtypes, devices or shapes."""
        # What moves or is cast lies elsewhere; what is cut in place has fewer elements. Vectors are checked by kernels.
        weights = itertools.compress(tensors, self._is_weight)
        memory = [*map(Tensor.data_ptr, tensors), *map(Tensor.numel, weights)]
        if memory != self._memory:
            kinds = list(map(_KIND, tensors))
            if kinds != self._kinds:
                self._networks.clear()
                self._runs.clear()
            self._memory, self._kinds = memory, kinds

    def network(self, x: Tensor, tensors: list[Tensor], normed: bool) -> Network | str:
        """The steps for images of this size; or why the ops do not take the layers' tensors."""
        key = (x.shape[1:], normed)
        if key not in self._networks:
            if len(self._networks) >= _MOST_SHAPES:
                self._networks.clear()
            named = dict(zip(self._present, tensors, strict=False))
            try:
                self._networks[key] = steps_of(self.parts, named, x, normed)
            except Misfit as misfit:
                self._networks[key] = str(misfit)
        return self._networks[key]

    def run(self, x: Tensor, tensors: list[Tensor]) -> Tensor | str | None:
        """What the steps make of ``x``. None where no backend computes networks; or why the layers have to.

        ``tensors``: those of the modules, then what images are normalised with if they are.
        """
        key = (x.shape, x.dtype, x.device, dispatch.asked_for())
        if key in self._runs and not dispatch.watched():
            run = self._runs[key]
            return None if run is None else run(x, tensors)
        network = self.network(x, tensors, len(tensors) > len(self._names))
        if isinstance(network, str):
            return network
        if dispatch.watched():
            kernel = _choose(x, tensors, network)
            result: Tensor | None = None if kernel is None else kernel(x, tensors, network)
            return result
        if len(self._runs) >= _MOST_SHAPES:
            self._runs.clear()
        y, self._runs[key] = _first_run(x, tensors, network)
        return y


def _choose(x: Tensor, tensors: Sequence[Tensor], network: Network) -> Callable[..., Any] | None:
    arguments = (x, tensors, network)
    return dispatch.choose(NETWORK, x.device.type, arguments, composite=True)


def _first_run(
    x: Tensor, tensors: list[Tensor], network: Network
) -> tuple[Tensor | None, Run | None]:
    """Run once, noting which kernels were chosen; return the result and a function that calls them directly."""
    recording = Recording()
    with dispatch.watching(recording):
        kernel = _choose(x, tensors, network)
        decision = recording.network_decision
        if kernel is None or decision is None:
            return None, None

        def run(x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
            y: Tensor = kernel(x, tensors, network)
            return y

        if not decision.run_by_parts:
            return run(x, tensors), run
        y, launches = recording.run(x, tensors, network)
    return y, run if launches is None else launches.run


# A model's copies and pickles are to know nothing of it.
_plans: weakref.WeakKeyDictionary[nn.Module, Plan] = weakref.WeakKeyDictionary()


def run(model: Any, methods: Mapping[str, Any], x: Tensor) -> Tensor | None:
    """The logits of a classifier by its plan. None where its modules have to run one by one.

    That is where something is hooked, patched, in training or not of effkernels, where a gradient is wanted, ``x`` is
    no ordinary uint8, float32 or 16-bit tensor, PyTorch compiles or traces, or no backend computes networks.

    Args:
        model: an :class:`effkernels.models.EfficientNet`.
        methods: what its class's methods were, from :func:`effkernels.models.parts.methods_of`.
        x: (N, C, H, W), best in NCHW or channels_last memory.

    Raises:
        ValueError, TypeError: as the model itself, where ``x`` does not fit it.
    """
    if not dispatch.merely_runs():
        if not torch.compiler.is_compiling():
            dispatch.decline(NETWORK, "PyTorch transforms, traces or records the call")
        return None
    logits = _logits(model, methods, x)
    if isinstance(logits, str):
        dispatch.decline(NETWORK, logits)
        return None
    return logits


def _logits(model: Any, methods: Mapping[str, Any], x: Tensor) -> Tensor | str | None:
    if type(x) is not Tensor:
        return f"the input is a {type(x).__name__}"
    plan = _plan(model, methods)
    if isinstance(plan, str):
        return plan
    model._check_images(x)
    if x.dtype not in _DTYPES and x.dtype != torch.uint8:
        return f"it takes uint8, float32, bfloat16 and float16, not {x.dtype}"
    if dispatch.autocast_enabled(x.device.type):
        return "torch.autocast is on"
    tensors = plan.tensors()
    if tensors is None:
        plan = _plan(model, methods, anew=True)
        tensors = None if isinstance(plan, str) else plan.tensors()
    if isinstance(plan, str):
        return plan
    if tensors is None or not _TENSORS.issuperset(map(type, tensors)):
        return "a parameter is no plain tensor"
    if torch.is_grad_enabled() and (x.requires_grad or any(map(_requires_grad, tensors))):
        return "a gradient is wanted"
    plan.look_at(tensors)
    y = plan.run(x, tensors + model._pixel_norm(x))
    if y is None or isinstance(y, str) or plan.parts.classifier is not None:
        return y
    logits: Tensor = model.classifier(model.dropout(y.to(model.stem.conv.weight.dtype)))
    return logits


def _plan(model: nn.Module, methods: Mapping[str, Any], *, anew: bool = False) -> Plan | str:
    """The plan of a model, made again where the model is another than it was."""
    if model.training:
        return "the model is in training mode"
    plan = _plans.get(model)
    if plan is not None and not anew:
        if plan.snapshot.hooked():
            return "there are hooks"
        if not plan.snapshot.changed():
            return plan
    parts = plain_parts(model, methods)
    if isinstance(parts, str):
        _plans.pop(model, None)
        return parts
    plan = _plans[model] = Plan(model, parts)
    return plan
