"""The samples of every op: small valid calls with new random numbers."""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

import specs
from effkernels import ops
from specs.case import Case


@dataclass(frozen=True)
class Sample:
    """One call: of the Python function (:meth:`front`) and, with :attr:`flat`, of
    ``torch.ops.effkernels.<name>``.
    """

    name: str
    label: str
    case: Case
    # Made in __post_init__: torch.compile does not support cached properties, and fake tensors need real
    # ones made outside.
    _arguments: dict[str, Any] = field(init=False, repr=False)
    flat: tuple[Any, ...] = field(init=False, repr=False)
    """The arguments in the order of the schema."""

    def __post_init__(self) -> None:
        arguments = self.case.arguments_of(self.name, self.case.arguments())
        object.__setattr__(self, "_arguments", arguments)
        object.__setattr__(self, "flat", self.case.flat(self.name, arguments))

    def front(self) -> Any:
        """What ``effkernels.ops`` returns for the arguments."""
        return getattr(ops, self.name)(**self._arguments)


def _cases() -> Iterator[tuple[str, str, Case]]:
    """(op, label, case) for every module here that has samples."""
    for found in sorted(pkgutil.iter_modules(specs.__path__), key=lambda module: module.name):
        if found.name not in ops.__all__:
            continue
        module = importlib.import_module(f"specs.{found.name}")
        for label, case in module.SAMPLES.items():
            for op in case.variants:
                yield op, label, case


def samples(dtype: torch.dtype) -> list[Sample]:
    """Samples of every op that cover every kind of argument; numbers follow from the seed of Python's
    generator.
    """
    return [
        Sample(op, label, case.styled(dtype=dtype, seed=random.getrandbits(31)))
        for op, label, case in _cases()
    ]


def labels() -> list[str]:
    """The names of the samples, in order."""
    return [f"{op}-{label}" for op, label, _ in _cases()]


def labels_of_parts() -> list[str]:
    """The names of the samples of ops that are not composed of other ops."""
    return [label for label in labels() if not label.startswith(("mbconv", "expand_depthwise"))]
