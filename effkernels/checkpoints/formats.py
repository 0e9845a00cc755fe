"""The naming formats of published EfficientNet checkpoints, as data.

A format is a table from the roles of a network's layers to the names that one code base gives them.
The same table serves reading and writing, so the two cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

FormatName = Literal["effkernels", "timm", "torchvision", "lukemelas", "rangilyu"]

ROLES = (
    "expand.conv",
    "expand.bn",
    "depthwise.conv",
    "depthwise.bn",
    "squeeze_excite.reduce",
    "squeeze_excite.expand",
    "project.conv",
    "project.bn",
)
"""The layers of an MBConv block, by their names in the effkernels format."""

_LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Block:
    """The position of a block, and which layers it has."""

    stage: int
    block: int
    index: int
    expands: bool
    gated: bool


@dataclass(frozen=True)
class Structure:
    """What a key map needs to know about a network: its blocks in order, and which parts follow
    them.
    """

    blocks: tuple[Block, ...]
    head: bool
    classifier: bool

    @property
    def stages(self) -> int:
        """Number of stages that have at least one block."""
        return len({block.stage for block in self.blocks})


@dataclass(frozen=True)
class Location:
    """The part of a network that a checkpoint's key belongs to.

    Only those of ``stage``, ``block`` and ``index`` are set that the format's keys contain.
    """

    part: Literal["stem", "block", "head", "classifier"]
    stage: int | None = None
    block: int | None = None
    index: int | None = None


@dataclass(frozen=True)
class Format:
    """One naming scheme.

    ``block`` is the path of a block, with ``{stage}``, ``{stage_plus_one}``, ``{block}`` (counted
    within the stage) or ``{index}`` (counted over the network). ``expanding`` and ``plain`` are the
    names of a block's layers, with an expansion and without.
    """

    name: FormatName
    published_by: str
    stem_conv: str
    stem_bn: str
    block: str
    expanding: Mapping[str, str]
    plain: Mapping[str, str]
    head_conv: str
    head_bn: str
    classifier: str

    def modules(self, structure: Structure) -> dict[str, str]:
        """The layer paths of ``structure``: effkernels path -> path in this format."""
        named = {"stem.conv": self.stem_conv, "stem.bn": self.stem_bn}
        for block in structure.blocks:
            ours = f"stages.{block.stage}.{block.block}"
            theirs = self.block.format(
                stage=block.stage,
                stage_plus_one=block.stage + 1,
                block=block.block,
                index=block.index,
            )
            names = self.expanding if block.expands else self.plain
            for role in ROLES:
                if role.startswith("expand.") and not block.expands:
                    continue
                if role.startswith("squeeze_excite.") and not block.gated:
                    continue
                named[f"{ours}.{role}"] = f"{theirs}.{names[role]}"
        if structure.head:
            named |= {"head.conv": self.head_conv, "head.bn": self.head_bn}
        if structure.classifier:
            named["classifier"] = self.classifier
        return named

    def keys(self, structure: Structure, ours: Iterable[str]) -> dict[str, str]:
        """Effkernels key -> key in this format, for each of ``ours``.

        Raises:
            KeyError: ``structure`` has no layer with such a key.
        """
        modules = self.modules(structure)
        named = {}
        for key in ours:
            module, _, leaf = key.rpartition(".")
            named[key] = f"{modules[module]}.{leaf}"
        return named

    def locate(self, key: str) -> Location | None:
        """The part of the network that ``key`` belongs to, or None if this format has no such key."""
        module, _, leaf = key.rpartition(".")
        if leaf not in _LEAVES:
            return None
        if module in (self.stem_conv, self.stem_bn):
            return Location("stem")
        if module in (self.head_conv, self.head_bn):
            return Location("head")
        if module == self.classifier:
            return Location("classifier")
        match = self._block_pattern.fullmatch(module)
        if match is None:
            return None
        numbers = {name: int(number) for name, number in match.groupdict().items()}
        if "stage_plus_one" in numbers:
            numbers["stage"] = numbers.pop("stage_plus_one") - 1
        return Location("block", **numbers)

    @cached_property
    def _block_pattern(self) -> re.Pattern[str]:
        path = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(self.block))
        layers = {*self.expanding.values(), *self.plain.values()}
        return re.compile(rf"{path}\.(?:{'|'.join(re.escape(layer) for layer in layers)})")


EFFKERNELS = Format(
    name="effkernels",
    published_by="this package",
    stem_conv="stem.conv",
    stem_bn="stem.bn",
    block="stages.{stage}.{block}",
    expanding={role: role for role in ROLES},
    plain={role: role for role in ROLES},
    head_conv="head.conv",
    head_bn="head.bn",
    classifier="classifier",
)

TIMM = Format(
    name="timm",
    published_by="timm and geffnet",
    stem_conv="conv_stem",
    stem_bn="bn1",
    block="blocks.{stage}.{block}",
    # conv_pw is the expansion here; in a block without expansion (below) it is the projection.
    expanding={
        "expand.conv": "conv_pw",
        "expand.bn": "bn1",
        "depthwise.conv": "conv_dw",
        "depthwise.bn": "bn2",
        "squeeze_excite.reduce": "se.conv_reduce",
        "squeeze_excite.expand": "se.conv_expand",
        "project.conv": "conv_pwl",
        "project.bn": "bn3",
    },
    plain={
        "depthwise.conv": "conv_dw",
        "depthwise.bn": "bn1",
        "squeeze_excite.reduce": "se.conv_reduce",
        "squeeze_excite.expand": "se.conv_expand",
        "project.conv": "conv_pw",
        "project.bn": "bn2",
    },
    head_conv="conv_head",
    head_bn="bn2",
    classifier="classifier",
)

TORCHVISION = Format(
    name="torchvision",
    published_by="torchvision",
    stem_conv="features.0.0",
    stem_bn="features.0.1",
    block="features.{stage_plus_one}.{block}.block",
    expanding={
        "expand.conv": "0.0",
        "expand.bn": "0.1",
        "depthwise.conv": "1.0",
        "depthwise.bn": "1.1",
        "squeeze_excite.reduce": "2.fc1",
        "squeeze_excite.expand": "2.fc2",
        "project.conv": "3.0",
        "project.bn": "3.1",
    },
    plain={
        "depthwise.conv": "0.0",
        "depthwise.bn": "0.1",
        "squeeze_excite.reduce": "1.fc1",
        "squeeze_excite.expand": "1.fc2",
        "project.conv": "2.0",
        "project.bn": "2.1",
    },
    head_conv="features.8.0",  # after the stem and the seven stages that every EfficientNet has
    head_bn="features.8.1",
    classifier="classifier.1",
)

_LUKEMELAS_BLOCK = {
    "expand.conv": "_expand_conv",
    "expand.bn": "_bn0",
    "depthwise.conv": "_depthwise_conv",
    "depthwise.bn": "_bn1",
    "squeeze_excite.reduce": "_se_reduce",
    "squeeze_excite.expand": "_se_expand",
    "project.conv": "_project_conv",
    "project.bn": "_bn2",
}

LUKEMELAS = Format(
    name="lukemelas",
    published_by="lukemelas/EfficientNet-PyTorch (efficientnet-pytorch on PyPI)",
    stem_conv="_conv_stem",
    stem_bn="_bn0",
    block="_blocks.{index}",
    expanding=_LUKEMELAS_BLOCK,
    plain=_LUKEMELAS_BLOCK,
    head_conv="_conv_head",
    head_bn="_bn1",
    classifier="_fc",
)

RANGILYU = Format(
    name="rangilyu",
    published_by="RangiLyu/EfficientNet-Lite",
    stem_conv="stem.0",
    stem_bn="stem.1",
    block="blocks.{stage}.{block}",
    expanding=_LUKEMELAS_BLOCK,
    plain=_LUKEMELAS_BLOCK,
    head_conv="head.0",
    head_bn="head.1",
    classifier="fc",
)

FORMATS: dict[str, Format] = {
    known.name: known for known in (EFFKERNELS, TIMM, TORCHVISION, LUKEMELAS, RANGILYU)
}

# Other networks' checkpoints that people try to load, recognised so that the error can say what a
# file is.
_OTHER_FORMATS = {
    "efficientnet.embeddings.convolution.weight": "Hugging Face transformers",
    "layers.0.block0.depsep.conv.weight": "NVIDIA DeepLearningExamples",
    "features.1.0.block.0.0.weight": "torchvision EfficientNetV2 or MobileNetV3",
    "blocks.0.0.conv.weight": "timm EfficientNetV2",
}


def get_format(name: str) -> Format:
    """The format called ``name``.

    Raises:
        ValueError: unknown name.
    """
    if name not in FORMATS:
        raise ValueError(f"unknown checkpoint format {name!r}; known: {', '.join(FORMATS)}")
    return FORMATS[name]


def detect_format(keys: Iterable[str]) -> str:
    """Recognise the format of a state dict by its keys.

    Args:
        keys: the state dict's keys, without wrapper prefixes such as ``module.``.

    Returns:
        ``"effkernels"``, ``"timm"`` (geffnet has the same keys), ``"torchvision"``, ``"lukemelas"``
        or ``"rangilyu"``: the format that has most of the keys.

    Raises:
        ValueError: no format has at least half of the keys.
    """
    names = list(keys)
    known = {
        fmt.name: sum(fmt.locate(name) is not None for name in names) for fmt in FORMATS.values()
    }
    best = max(known, key=lambda name: known[name])
    if names and 2 * known[best] >= len(names):
        return best
    if not names:
        raise ValueError("the state dict is empty: it has no keys to recognise a format by")
    looks = next((who for key, who in _OTHER_FORMATS.items() if key in names), None)
    raise ValueError(
        f"unrecognised checkpoint format: {known[best]} of {len(names)} keys belong to the nearest "
        f"known one ({best}); the first keys are {listed(names, 4)}"
        + (f"; this looks like {looks}, which cannot be read" if looks else "")
        + f". Accepted: {', '.join(FORMATS)}"
    )


def structure_of(keys: Collection[str]) -> Structure:
    """The structure of a network, from its state-dict keys in the effkernels format.

    Raises:
        ValueError: the keys are not of the effkernels format.
    """
    layers: dict[tuple[int, int], set[str]] = {}
    parts = set()
    for key in keys:
        location = EFFKERNELS.locate(key)
        if location is None:
            raise ValueError(
                f"{key!r} is not a key of the effkernels format (an EfficientNet of this package is "
                f"expected): the other keys are like {listed(list(keys), 4)}"
            )
        parts.add(location.part)
        if location.stage is not None and location.block is not None:
            role = key.split(".", 3)[3]
            layers.setdefault((location.stage, location.block), set()).add(role)
    blocks = tuple(
        Block(
            stage,
            block,
            index,
            expands=any(role.startswith("expand.") for role in roles),
            gated=any(role.startswith("squeeze_excite.") for role in roles),
        )
        for index, ((stage, block), roles) in enumerate(sorted(layers.items()))
    )
    return Structure(blocks, head="head" in parts, classifier="classifier" in parts)


def listed(names: Collection[str], limit: int = 8) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(list(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
