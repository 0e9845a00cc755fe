"""Single layers and blocks of networks: cases of :mod:`specs` with the shapes of effkernels' configurations."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from benchmarks.cases import Scope, Suite
from benchmarks.cases.networks import B0, B4, B5, B7, GPU_BATCH, short_name
from benchmarks.harness.alternate import Timing
from benchmarks.harness.device import CPU, Device
from benchmarks.harness.problem import KEPT_IMAGES, SEED, Answer, Tensors, checked
from effkernels.analysis import cost
from effkernels.models import get_config
from specs.case import Case as Shape
from specs.oracle import in_float64
from specs.oracle_convolutions import OracleConvolutions
from specs.style import Style
from specs.work import Work

TIMING = Timing(turn=0.02, budget=1.2, settle=0.005, min_rounds=9)
# In NCHW, which contestants convert; 1x1 kernels with 4 dimensions; gates with biases, as in the networks.
STYLE = Style(layout="nchw", weights="channels_last", gate_bias=True, seed=SEED)


@dataclass(frozen=True)
class LayerCase:
    """One op call on a device; ``used_by`` names the networks that have this layer."""

    shape: Shape
    device: Device = CPU
    used_by: tuple[str, ...] = field(default=(), compare=False)

    @property
    def batch(self) -> int:
        """Images."""
        return self.shape.n

    @property
    def key(self) -> str:
        """Unique among all cases, and usable as a file name."""
        return self.shape.key + self.device.suffix

    @property
    def title(self) -> str:
        """For people."""
        return self.shape.title

    @property
    def work(self) -> Work:
        """Each map read or written once, and the parameters."""
        return self.shape.styled(dtype=self.device.dtype).work()

    @property
    def clock(self) -> str:
        """Measures the whole run."""
        return self.device.kind

    def described(self) -> dict[str, Any]:
        """The shape as plain data, without the style of its tensors."""
        shape = {k: v for k, v in dataclasses.asdict(self.shape).items() if k not in ("n", "style")}
        around = {"op": self.shape.op, "batch": self.batch, "used_by": list(self.used_by)}
        return {**shape, **around, "device": dataclasses.asdict(self.device)}

    def make(self, folder: Path) -> tuple[Tensors, dict[str, Answer]]:
        """Random inputs, and the exact results for the checked images."""
        kept = replace(self.shape, n=min(self.batch, KEPT_IMAGES)).arguments()
        some = checked(kept, self)
        with OracleConvolutions():
            return kept, self.answers(some, in_float64(some))

    def answers(self, some: Tensors, exact: Any) -> dict[str, Answer]:
        """The result, computed from the same inputs in the case's type and in float64."""
        results: list[Tensor] = [self.shape.eager(**given) for given in (exact, some)]
        magnitude, depth = self.shape.magnitude(some), self.shape.depth
        return {"result": Answer(*results, magnitude, depth)}


Layer = TypeVar("Layer", bound=LayerCase)
Found = Iterable[tuple[Shape, str]]


def layers(
    models: Sequence[str],
) -> Iterator[tuple[str, str, cost.LayerCost, cost.LayerCost]]:
    """(model, its activation, layer, the layer before it) for all layers; a stem comes after ``before``."""
    for model in models:
        every = cost.model_cost(model).layers
        for previous, layer in itertools.pairwise(every):
            yield model, get_config(model).activation, layer, previous


def distinct(found: Found, scope: Scope, make: type[Layer]) -> tuple[Layer, ...]:
    """Each shape once, with the models that use it, on the scope's device."""
    users: dict[Shape, list[str]] = {}
    for shape, model in found:
        known = users.setdefault(shape, [])
        if short_name(model) not in known:
            known.append(short_name(model))
    batch = 1 if scope.on_cpu else GPU_BATCH
    return tuple(
        make(replace(shape, n=batch), scope.device, tuple(names)) for shape, names in users.items()
    )


def models_for_convolutions(scope: Scope) -> list[str]:
    """The networks whose convolutions are measured."""
    return [B0, B4] if scope.on_cpu or not scope.full else [B0, B4, B5, B7]


def models_for_other_layers(scope: Scope) -> list[str]:
    """The networks whose other layers are measured."""
    return models_for_convolutions(scope) if scope.full else [B0]


def suite(
    name: str, heading: str, cases: Sequence[LayerCase], scope: Scope, *groups: str, place: int
) -> list[Suite]:
    """One of layers."""
    contestants = scope.contestants("layers", *groups)
    return [Suite(name, heading, tuple(cases), contestants, TIMING, "layers", place=place)]
