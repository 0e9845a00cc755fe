"""The steps of the one network that a model calls, from a pass that is watched."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effkernels import dispatch
from effkernels.explaining.recorder import Recorder, Row
from effkernels.ops._steps import NETWORK, Network, traced
from effkernels.profiling.bounds import Arithmetic, arithmetic, weight_bytes

_MOST_NAMED = 3


class Steps(Recorder):  # type: ignore[no-untyped-call]
    """Also notes what each step of a network computes, and how many calls of networks there are.

    Attributes:
        arithmetic: of each step.
        networks: the backend of each call.
        weight_bytes: of the network.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.arithmetic: list[Arithmetic] = []
        self.networks: list[str] = []
        self.weight_bytes = 0
        self._before: list[Row] = []

    def _add_steps(
        self, backend: str, why: str, x: Tensor, tensors: Sequence[Tensor], network: Network
    ) -> None:
        self.finish()
        self.networks.append(backend)
        self._before += self.rows
        self.rows.clear()
        super()._add_steps(backend, why, x, tensors, network)
        self.weight_bytes = weight_bytes(tensors)
        shapes = [tensor.shape for tensor in network.with_matrices(tensors)]
        images = torch.empty_like(x, device="meta")
        self.arithmetic = [
            arithmetic(step, before.shape, after.shape, shapes)
            for step, before, _, after in traced(images, tensors, network)
        ]

    @property
    def around(self) -> list[Row]:
        """What ran before the network and after it."""
        return self._before + self.rows[len(self.arithmetic) :]


def steps_of(model: nn.Module, input: Tensor, backend: str) -> Steps:
    """The steps of the model's one network, which has to run on ``backend`` as one call.

    Raises:
        ValueError: the model is in training mode, calls several networks, or none on this backend; then the message
            says why, and which layers run elsewhere.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("profile: the model is in training mode: call model.eval() first")
    steps = Steps(model)
    with dispatch.watching(steps), steps:
        model(input)
    steps.finish()
    if steps.networks == [backend]:
        return steps
    if len(steps.networks) > 1:
        raise ValueError(
            f"profile: the model calls {len(steps.networks)} networks: profile one of them at a time"
        )
    raise ValueError(
        f"profile: the model does not run as one call of {NETWORK} on the {backend} backend: "
        f"{_why_not(steps, backend)}. Pass an EfficientNet in evaluation mode without hooks, outside of autocast and "
        "of use_backend of another backend; effkernels.explain shows how each of its layers runs"
    )


def _why_not(steps: Steps, backend: str) -> str:
    calls = [row for row in steps.rows if row.call is not None]
    otherwise = "its steps are calls of their own" if calls else "it calls no network of effkernels"
    why = "; ".join(dict.fromkeys(steps.notes)) or otherwise
    elsewhere = [row for row in steps.rows if row.name and row.backend != backend]
    if not calls or not elsewhere:
        return why
    named = rows_text(elsewhere[:_MOST_NAMED])
    more = len(elsewhere) - _MOST_NAMED
    return f"{why}; not on it: {named}" + (f" and {more} more" if more > 0 else "")


def rows_text(rows: Sequence[Row]) -> str:
    """ "stages.2.1 (mbconv on torch), classifier (addmm on torch)"."""
    return ", ".join(f"{row.name or '-'} ({row.op} on {row.backend})" for row in rows)


def weight_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of the first of the model's weights; float32 where it has none."""
    return next((p.dtype for p in model.parameters() if p.dim() > 1), torch.float32)
