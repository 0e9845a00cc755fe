"""A classifier's inference plan: the ops that it calls, and which backend runs each, found once.

Calling layer by layer costs as much as small networks take. Where :func:`effkernels.models.parts.plain_parts` finds
nothing but what the ops compute, a classifier's pass is a list of steps (:class:`effkernels.ops._steps.Network`), which
runs by one kernel of a backend that has one for whole networks, and else as the list of the steps' own kernels
(:class:`effkernels.models.launches.Launches`). So are feature maps, which are results of some of the steps. What is
kept between calls, and how it is looked at again, is a :class:`effkernels.models.plan.Plan`.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effkernels import dispatch
from effkernels.models.parts import plain_parts, plain_trunk
from effkernels.models.plan import Plan, wants_gradient
from effkernels.ops._steps import NETWORK

_TENSORS = frozenset((Tensor, nn.Parameter))

# A model's copies and pickles are to know nothing of it.
_plans: weakref.WeakKeyDictionary[nn.Module, Plan] = weakref.WeakKeyDictionary()
_map_plans: weakref.WeakKeyDictionary[nn.Module, Plan] = weakref.WeakKeyDictionary()
_Make = Callable[[], "Plan | str"]


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

    def make() -> Plan | str:
        parts = plain_parts(model, methods)
        return parts if isinstance(parts, str) else Plan(model, parts)

    found = _by_plan(model, x, _plans, make)
    return None if found is None else _classified(model, *found)


def maps(model: Any, x: Tensor, stages: Sequence[int] | None) -> list[Tensor] | None:
    """Feature maps by a plan of its own, in channels_last memory.

    None where modules have to run one by one, as for :func:`run`.

    Args:
        model: with ``stem`` and ``stages`` as :class:`effkernels.models.EfficientNet` has them.
        x: (N, C, H, W).
        stages: those whose maps are wanted; None for the map of ``head`` alone.

    Raises:
        ValueError, TypeError: as the model itself, where ``x`` does not fit it.
    """
    plan = _map_plans.get(model)
    if plan is not None and plan.stages != stages:
        _map_plans.pop(model, None)

    def make() -> Plan | str:
        shadowed = [n for n in vars(model) if callable(getattr(type(model), n, None))]
        if shadowed:
            return f"{shadowed[0]} of the model is replaced"
        parts = plain_trunk(model, head=stages is None)
        if isinstance(parts, str):
            return parts
        if stages is None:
            return Plan(model, parts, (len(parts.blocks) + 1,))
        if max(stages) >= len(parts.stages) or 0 in parts.stages:
            return "a stage is missing or empty"
        ends = list(itertools.accumulate(parts.stages))
        made = Plan(model, parts, [ends[stage] for stage in stages])
        made.stages = list(stages)
        return made

    found = _by_plan(model, x, _map_plans, make)
    return None if found is None else found[1]


def _by_plan(
    model: Any, x: Tensor, plans: weakref.WeakKeyDictionary[nn.Module, Plan], make: _Make
) -> tuple[Plan, Any] | None:
    """The plan and what it makes of ``x``; None, and who watches is told why, where modules have to run one by one."""
    if not dispatch.is_plain_call():
        if not torch.compiler.is_compiling():
            dispatch.decline(NETWORK, "PyTorch transforms, traces or records the call")
        return None
    plan = plans.get(model)
    if plan is not None and type(x) is Tensor:
        y = plan.again(x)
        if y is not None:
            return plan, y
    found = _run(model, x, plans, make)
    if isinstance(found, str):
        dispatch.decline(NETWORK, found)
        return None
    return found


def _run(
    model: Any, x: Tensor, plans: weakref.WeakKeyDictionary[nn.Module, Plan], make: _Make
) -> tuple[Plan, Any] | str | None:
    """The plan and what it makes of ``x``; see :meth:`Plan.run`."""
    if type(x) is not Tensor:
        return f"the input is a {type(x).__name__}"
    plan = _plan(model, plans, make)
    if isinstance(plan, str):
        return plan
    model._check_images(x)
    if x.dtype not in dispatch.KERNEL_DTYPES and x.dtype != torch.uint8:
        return f"it takes uint8, float32, bfloat16 and float16, not {x.dtype}"
    if dispatch.autocast_enabled(x.device.type):
        return "torch.autocast is on"
    tensors = plan.tensors()
    if tensors is None:
        plan = _plan(model, plans, make, anew=True)
        tensors = None if isinstance(plan, str) else plan.tensors()
    if isinstance(plan, str):
        return plan
    if tensors is None or not _TENSORS.issuperset(map(type, tensors)):
        return "a parameter is no plain tensor"
    if wants_gradient(x, tensors):
        return "a gradient is wanted"
    y = plan.run(x, tensors, model._pixel_norm(x))
    return y if y is None or isinstance(y, str) else (plan, y)


def _classified(model: Any, plan: Plan, y: Any) -> Tensor:
    """The logits, from what the steps make: these, or features for a classifier that is none of the steps."""
    logits: Tensor = y
    if plan.parts.classifier is None:
        logits = y.to(plan.parts.stem.conv.weight.dtype)
        if not plan.parts.ends_in_features:
            logits = model.classifier(model.dropout(logits))
    return logits


def let_go(model: nn.Module) -> None:
    """Keep no tensor of the model: it is about to replace them."""
    for plan in (_plans.get(model), _map_plans.get(model)):
        if plan is not None:
            plan.let_go()


def _plan(
    model: nn.Module,
    plans: weakref.WeakKeyDictionary[nn.Module, Plan],
    make: _Make,
    *,
    anew: bool = False,
) -> Plan | str:
    """The plan of a model, made again where the model is another than it was."""
    if model.training:
        return "the model is in training mode"
    plan = plans.get(model)
    if plan is not None and not anew:
        plan.look()
        if plan.snapshot.hooked():
            return "there are hooks"
        if not plan.snapshot.changed():
            return plan
    made = make()
    if isinstance(made, str):
        plans.pop(model, None)
    else:
        plans[model] = made
    return made
