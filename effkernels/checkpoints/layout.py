"""How a checkpoint's keys are made up: which layers a network has, and what one code base calls them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

FormatName = Literal[
    "effkernels",
    "timm",
    "torchvision",
    "lukemelas",
    "rangilyu",
    "torchvision_mobilenet",
    "torchvision_resnet",
]

Kind = Literal["expanding", "plain", "fused", "fused_plain", "bottleneck", "separable"]
"""Of blocks, by their layers: MBConv with and without an expansion, fused MBConv likewise, and others."""

_EXPAND = ("expand.conv", "expand.bn")
_SQUEEZE = ("squeeze_excite.reduce", "squeeze_excite.expand")
_PROJECT = ("project.conv", "project.bn")
_DEPTHWISE = ("depthwise.conv", "depthwise.bn")

ROLES: Mapping[Kind, tuple[str, ...]] = {
    "expanding": (*_EXPAND, *_DEPTHWISE, *_SQUEEZE, *_PROJECT),
    "plain": (*_DEPTHWISE, *_SQUEEZE, *_PROJECT),
    "fused": (*_EXPAND, *_SQUEEZE, *_PROJECT),
    "fused_plain": (*_SQUEEZE, *_PROJECT),
    "bottleneck": (
        *("reduce.conv", "reduce.bn", "conv.conv", "conv.bn", "shortcut.conv", "shortcut.bn"),
        *("restore.conv", "restore.bn", *_SQUEEZE),
    ),
    "separable": (*_DEPTHWISE, "pointwise.conv", "pointwise.bn"),
}
"""The layers that blocks may have, under the names of the effkernels format."""

_LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Block:
    """Where a block stands, and which of the layers of its kind exist."""

    stage: int
    block: int
    index: int
    kind: Kind
    roles: tuple[str, ...]

    @property
    def gated(self) -> bool:
        """Whether it has squeeze-excitation."""
        return not set(_SQUEEZE).isdisjoint(self.roles)


@dataclass(frozen=True)
class Structure:
    """What a key map has to know of a network: its blocks in order, and how it ends."""

    blocks: tuple[Block, ...]
    head: bool
    classifier: bool

    @property
    def stages(self) -> int:
        """Stages that have at least one block."""
        return len({block.stage for block in self.blocks})


@dataclass(frozen=True)
class Location:
    """The part of a network that a checkpoint's key belongs to.

    Of ``stage``, ``block`` and ``index``, those that the format writes into its keys are set.
    """

    part: Literal["stem", "block", "head", "classifier"]
    stage: int | None = None
    block: int | None = None
    index: int | None = None


@dataclass(frozen=True)
class Format:
    """One naming scheme.

    ``block`` is the path of a block, with ``{stage}``, ``{stage_plus_one}``, ``{block}`` (counted
    in the stage), ``{index}`` or ``{index_plus_one}`` (counted in the network). ``layers`` names the
    layers of each kind of block that there are names for. ``head_conv`` and ``head_bn`` may have
    ``{behind}``, the number of stages plus one, or ``{behind_blocks}``, that of blocks plus one; they
    are None where no network has a head.
    """

    name: FormatName
    published_by: str
    stem_conv: str
    stem_bn: str
    block: str
    layers: Mapping[Kind, Mapping[str, str]]
    head_conv: str | None
    head_bn: str | None
    classifier: str

    def modules(self, structure: Structure) -> dict[str, str]:
        """Layer paths of ``structure``: of the effkernels format -> of this one.

        Raises:
            ValueError: a layer that this format has no name for.
        """
        named = {"stem.conv": self.stem_conv, "stem.bn": self.stem_bn}
        for block in structure.blocks:
            ours = f"stages.{block.stage}.{block.block}"
            theirs = self.block.format(
                stage=block.stage,
                stage_plus_one=block.stage + 1,
                block=block.block,
                index=block.index,
                index_plus_one=block.index + 1,
            )
            names = self.layers.get(block.kind, {})
            for role in block.roles:
                if role not in names:
                    raise ValueError(
                        f"the {self.name} format has no name for {ours}.{role}: "
                        f"{self.published_by} has no such block"
                    )
                named[f"{ours}.{role}"] = f"{theirs}.{names[role]}"
        if structure.head:
            if self.head_conv is None or self.head_bn is None:
                raise ValueError(
                    f"the {self.name} format has no name for head.conv: {self.published_by} has no head"
                )
            behind = {
                "behind": structure.stages + 1,
                "behind_blocks": len(structure.blocks) + 1,
            }
            named["head.conv"] = self.head_conv.format(**behind)
            named["head.bn"] = self.head_bn.format(**behind)
        if structure.classifier:
            named["classifier"] = self.classifier
        return named

    def keys(self, structure: Structure, ours: Iterable[str]) -> dict[str, str]:
        """Key of the effkernels format -> key of this one, for each of ``ours``.

        Raises:
            KeyError: a key that no layer of ``structure`` has.
            ValueError: a layer that this format has no name for.
        """
        modules = self.modules(structure)
        named = {}
        for key in ours:
            module, _, leaf = key.rpartition(".")
            named[key] = f"{modules[module]}.{leaf}"
        return named

    def locate(self, key: str) -> Location | None:
        """Where ``key`` belongs, or None for a key that this format does not have."""
        module, _, leaf = key.rpartition(".")
        if leaf not in _LEAVES:
            return None
        if module in (self.stem_conv, self.stem_bn):
            return Location("stem")
        if self._head_pattern is not None and self._head_pattern.fullmatch(module) is not None:
            return Location("head")
        if module == self.classifier:
            return Location("classifier")
        match = self._block_pattern.fullmatch(module)
        if match is None:
            return None
        numbers = {name: int(number) for name, number in match.groupdict().items()}
        for name in ("stage", "index"):
            if f"{name}_plus_one" in numbers:
                numbers[name] = numbers.pop(f"{name}_plus_one") - 1
        return Location("block", **numbers)

    @cached_property
    def _block_pattern(self) -> re.Pattern[str]:
        path = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(self.block))
        layers = {name for names in self.layers.values() for name in names.values()}
        return re.compile(rf"{path}\.(?:{'|'.join(re.escape(layer) for layer in layers)})")

    @cached_property
    def _head_pattern(self) -> re.Pattern[str] | None:
        if self.head_conv is None or self.head_bn is None:
            return None
        conv, bn = (
            re.sub(r"\\\{behind\w*\\\}", r"[1-9]\\d*", re.escape(path))
            for path in (self.head_conv, self.head_bn)
        )
        return re.compile(f"{conv}|{bn}")
