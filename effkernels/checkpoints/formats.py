"""The naming formats of published EfficientNet checkpoints, as data.

A format is a table from the roles of a network's layers to the names that one code base gives them.
The same table serves reading and writing, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from effkernels.checkpoints.layout import ROLES, Block, Format, Kind, Structure

EFFKERNELS = Format(
    name="effkernels",
    published_by="this package",
    stem_conv="stem.conv",
    stem_bn="stem.bn",
    block="stages.{stage}.{block}",
    layers={kind: {role: role for role in roles} for kind, roles in ROLES.items()},
    head_conv="head.conv",
    head_bn="head.bn",
    classifier="classifier",
)

_TIMM_SQUEEZE = {
    "squeeze_excite.reduce": "se.conv_reduce",
    "squeeze_excite.expand": "se.conv_expand",
}

TIMM = Format(
    name="timm",
    published_by="timm and geffnet",
    stem_conv="conv_stem",
    stem_bn="bn1",
    block="blocks.{stage}.{block}",
    layers={
        # conv_pw is the expansion here and the projection of a block without expansion below.
        "expanding": {
            "expand.conv": "conv_pw",
            "expand.bn": "bn1",
            "depthwise.conv": "conv_dw",
            "depthwise.bn": "bn2",
            **_TIMM_SQUEEZE,
            "project.conv": "conv_pwl",
            "project.bn": "bn3",
        },
        "plain": {
            "depthwise.conv": "conv_dw",
            "depthwise.bn": "bn1",
            **_TIMM_SQUEEZE,
            "project.conv": "conv_pw",
            "project.bn": "bn2",
        },
        # EdgeResidual and ConvBnAct.
        "fused": {
            "expand.conv": "conv_exp",
            "expand.bn": "bn1",
            **_TIMM_SQUEEZE,
            "project.conv": "conv_pwl",
            "project.bn": "bn2",
        },
        "fused_plain": {"project.conv": "conv", "project.bn": "bn1"},
        # MobileNetV1.
        "separable": {
            "depthwise.conv": "conv_dw",
            "depthwise.bn": "bn1",
            "pointwise.conv": "conv_pw",
            "pointwise.bn": "bn2",
        },
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
    layers={
        "expanding": {
            "expand.conv": "0.0",
            "expand.bn": "0.1",
            "depthwise.conv": "1.0",
            "depthwise.bn": "1.1",
            "squeeze_excite.reduce": "2.fc1",
            "squeeze_excite.expand": "2.fc2",
            "project.conv": "3.0",
            "project.bn": "3.1",
        },
        "plain": {
            "depthwise.conv": "0.0",
            "depthwise.bn": "0.1",
            "squeeze_excite.reduce": "1.fc1",
            "squeeze_excite.expand": "1.fc2",
            "project.conv": "2.0",
            "project.bn": "2.1",
        },
        "fused": {
            "expand.conv": "0.0",
            "expand.bn": "0.1",
            "project.conv": "1.0",
            "project.bn": "1.1",
        },
        "fused_plain": {"project.conv": "0.0", "project.bn": "0.1"},
    },
    head_conv="features.{behind}.0",
    head_bn="features.{behind}.1",
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
    layers={"expanding": _LUKEMELAS_BLOCK, "plain": _LUKEMELAS_BLOCK},
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
    layers={"expanding": _LUKEMELAS_BLOCK, "plain": _LUKEMELAS_BLOCK},
    head_conv="head.0",
    head_bn="head.1",
    classifier="fc",
)

TORCHVISION_MOBILENET = Format(
    name="torchvision_mobilenet",
    published_by="torchvision's MobileNetV2",
    stem_conv="features.0.0",
    stem_bn="features.0.1",
    block="features.{index_plus_one}.conv",
    layers={
        "expanding": {
            "expand.conv": "0.0",
            "expand.bn": "0.1",
            "depthwise.conv": "1.0",
            "depthwise.bn": "1.1",
            "project.conv": "2",
            "project.bn": "3",
        },
        "plain": {
            "depthwise.conv": "0.0",
            "depthwise.bn": "0.1",
            "project.conv": "1",
            "project.bn": "2",
        },
    },
    head_conv="features.{behind_blocks}.0",
    head_bn="features.{behind_blocks}.1",
    classifier="classifier.1",
)

TORCHVISION_RESNET = Format(
    name="torchvision_resnet",
    published_by="torchvision's ResNets",
    stem_conv="conv1",
    stem_bn="bn1",
    block="layer{stage_plus_one}.{block}",
    layers={
        "bottleneck": {
            "reduce.conv": "conv1",
            "reduce.bn": "bn1",
            "conv.conv": "conv2",
            "conv.bn": "bn2",
            "shortcut.conv": "downsample.0",
            "shortcut.bn": "downsample.1",
            "restore.conv": "conv3",
            "restore.bn": "bn3",
        },
    },
    head_conv=None,
    head_bn=None,
    classifier="fc",
)

FORMATS: dict[str, Format] = {
    known.name: known
    for known in (
        *(EFFKERNELS, TIMM, TORCHVISION, LUKEMELAS, RANGILYU),
        *(TORCHVISION_MOBILENET, TORCHVISION_RESNET),
    )
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
        ``"effkernels"``, ``"timm"`` (geffnet has the same keys), ``"torchvision"``, ``"lukemelas"``,
        ``"rangilyu"``, ``"torchvision_mobilenet"`` or ``"torchvision_resnet"`` (also of timm's ResNets):
        the format that has most of the keys.

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
            role = key.split(".", 3)[3].rpartition(".")[0]
            layers.setdefault((location.stage, location.block), set()).add(role)
    blocks = tuple(
        Block(stage, block, index, kind := _kind(roles), _ordered(kind, roles))
        for index, ((stage, block), roles) in enumerate(sorted(layers.items()))
    )
    return Structure(blocks, head="head" in parts, classifier="classifier" in parts)


def _kind(roles: Collection[str]) -> Kind:
    """What a block with these layers is."""
    if "reduce.conv" in roles:
        return "bottleneck"
    if "pointwise.conv" in roles:
        return "separable"
    expands = "expand.conv" in roles
    if "depthwise.conv" in roles:
        return "expanding" if expands else "plain"
    return "fused" if expands else "fused_plain"


def _ordered(kind: Kind, roles: Collection[str]) -> tuple[str, ...]:
    return tuple(role for role in ROLES[kind] if role in roles)


def listed(names: Collection[str], limit: int = 8) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(list(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
