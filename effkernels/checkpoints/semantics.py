"""What a checkpoint's keys do not say: BatchNorm constants, padding, preprocessing.

A wrong guess costs accuracy without any error. So they are looked up by where the weights come
from, in tables of what each publisher trained with.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from effkernels.checkpoints import published
from effkernels.preprocessing import Preprocessing

Padding = Literal["symmetric", "same"]

_TORCHVISION_LATE = ("efficientnet_b5", "efficientnet_b6", "efficientnet_b7")
# Formats of networks that all have PyTorch's default eps and momentum, as timm's MobileNetV1 has.
_PYTORCHS_OWN = ("torchvision_mobilenet", "torchvision_resnet")
_FAMILIES = ("timm", "torchvision", "lukemelas", "rangilyu", "effkernels")

# An optional tf_, the variant, an old suffix of timm 0.x, and a tag after a dot.
_NAME = re.compile(
    r"(?P<tf>tf_)?(?P<variant>efficientnet_[a-z]+\d)"
    r"(?:_(?P<suffix>ns_475|ns|ap|aa))?(?:\.(?P<tag>\w+))?"
)
_OLD_SUFFIXES = {
    "ns": "ns_jft_in1k",
    "ns_475": "ns_jft_in1k_475",
    "ap": "ap_in1k",
    "aa": "aa_in1k",
}


@dataclass(frozen=True)
class Semantics:
    """How a model has to be built to compute what it computed in training.

    Args:
        bn_eps: added to BatchNorm's variance.
        bn_momentum: in PyTorch's sense: the weight of the new batch.
        padding: ``"symmetric"``, or ``"same"`` for TensorFlow's padding.
        preprocessing: of the pictures; None if it is not known (then the model's default is used).

    Raises:
        ValueError: a value is out of range.
    """

    bn_eps: float
    bn_momentum: float
    padding: Padding
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bn_eps) and self.bn_eps > 0):
            raise ValueError(f"bn_eps must be above 0, got {self.bn_eps}")
        if not 0 <= self.bn_momentum <= 1:
            raise ValueError(f"bn_momentum must lie in [0, 1], got {self.bn_momentum}")
        if self.padding not in get_args(Padding):
            raise ValueError(f"padding must be 'symmetric' or 'same', got {self.padding!r}")

    def same_outputs(self, other: Semantics) -> bool:
        """Whether both give the same logits in eval mode. Momentum matters only in training."""
        return self.padding == other.padding and math.isclose(self.bn_eps, other.bn_eps)

    def describe(self) -> str:
        """The two values that change logits, for messages."""
        return f"eps {self.bn_eps:g}, {self.padding} padding"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types; :func:`semantics_from_json` reads it."""
        return asdict(self)


def semantics_from_json(record: Mapping[str, Any]) -> Semantics:
    """The inverse of :meth:`Semantics.to_json`.

    Raises:
        ValueError: a value is missing or malformed.
    """
    try:
        pictures = record.get("preprocessing")
        return Semantics(
            bn_eps=float(record["bn_eps"]),
            bn_momentum=float(record["bn_momentum"]),
            padding=record["padding"],
            preprocessing=None if pictures is None else Preprocessing(**pictures),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"malformed semantics {json.dumps(record, default=str)}: {error}"
        ) from None


@dataclass(frozen=True)
class Source:
    """A parsed ``source=``: who trained the weights, which model, and which of its weights."""

    family: str
    tf: bool
    variant: str
    tag: str | None

    @property
    def name(self) -> str:
        """The source as ``source=`` takes it."""
        tag = f".{self.tag}" if self.tag else ""
        return f"{self.family}/{'tf_' if self.tf else ''}{self.variant}{tag}"


def parse_source(source: str) -> Source:
    """Read a source such as ``"timm/tf_efficientnet_b0.ns_jft_in1k"``.

    Args:
        source: ``family/name`` or ``family/name.tag``. Families: timm (also for geffnet),
            torchvision, lukemelas, rangilyu, effkernels. Names may be written with ``-`` for ``_``.
                A tag matters if a publisher's weights expect differently prepared pictures: AdvProp
                weights (``.ap_in1k``, ``.advprop``) use another mean and std. Without a tag, the
                publisher's default weights are meant.

    Raises:
        ValueError: the source does not have that form, or is unknown.
    """
    family, _, name = source.partition("/")
    family = {"geffnet": "timm"}.get(family.lower(), family.lower())
    match = _NAME.fullmatch(name.replace("-", "_"))
    if family not in _FAMILIES or match is None or (match["tf"] and family != "timm"):
        raise ValueError(
            f"unknown source {source!r}; a source names who trained the weights and the model, as "
            f"in 'timm/tf_efficientnet_b0', 'timm/efficientnet_b0.ra_in1k', "
            f"'torchvision/efficientnet_b0', 'lukemelas/efficientnet-b0' or "
            f"'rangilyu/efficientnet_lite0'"
        )
    if match["suffix"] and match["tag"]:
        raise ValueError(f"source {source!r} has both a suffix and a tag; the tag alone is enough")
    tag = _OLD_SUFFIXES[match["suffix"]] if match["suffix"] else match["tag"]
    return Source(family, match["tf"] is not None, match["variant"], tag)


def source_semantics(source: str | Source) -> Semantics:
    """The semantics with which the weights of a published source were trained.

    Raises:
        ValueError: the source is unknown, or its publisher never released such weights.
    """
    parsed = parse_source(source) if isinstance(source, str) else source
    if parsed.family == "timm":
        pictures = published.timm_preprocessing(parsed.variant, tf=parsed.tf, tag=parsed.tag)
        if parsed.tf:
            # timm builds tf_ models with TensorFlow's eps but PyTorch's momentum.
            return Semantics(1e-3, 0.1, "same", pictures)
        return Semantics(1e-5, 0.1, "symmetric", pictures)
    if parsed.family == "torchvision":
        pictures = published.torchvision_preprocessing(parsed.variant, tag=parsed.tag)
        late = parsed.variant in _TORCHVISION_LATE
        return Semantics(1e-3 if late else 1e-5, 0.01 if late else 0.1, "symmetric", pictures)
    if parsed.family == "lukemelas":
        pictures = published.lukemelas_preprocessing(parsed.variant, tag=parsed.tag)
        return Semantics(1e-3, 0.01, "same", pictures)
    if parsed.tag is not None:
        raise ValueError(f"source {parsed.name!r}: {parsed.family} has no tagged weights")
    if parsed.family == "rangilyu":
        return Semantics(1e-3, 0.01, "symmetric", published.rangilyu_preprocessing(parsed.variant))
    return Semantics(1e-3, 0.01, "symmetric")


def format_semantics(fmt: str, variant: str) -> Semantics:
    """The semantics that follow from the format alone.

    Args:
        fmt: name of the format.
        variant: our model name.

    Raises:
        ValueError: the keys allow two readings (timm), or the format's publisher has no such model.
    """
    network = variant.partition("(")[0]  # of a scaled one, without its factors
    if fmt in _PYTORCHS_OWN or (fmt == "timm" and network == "mobilenet_v1"):
        return Semantics(1e-5, 0.1, "symmetric")
    if fmt == "timm":
        known = variant if published.is_named(variant) else "efficientnet_b0"
        raise ValueError(
            f"the keys are timm's, but timm's {known} (BatchNorm eps 1e-5, symmetric padding) and "
            f"tf_{known} (eps 1e-3, SAME padding) have the same keys: pass "
            f"source='timm/{known}' or source='timm/tf_{known}'"
        )
    if fmt == "effkernels":
        return Semantics(1e-3, 0.01, "symmetric")  # the defaults of this package's models
    if not published.is_named(variant):
        if fmt == "torchvision":
            raise ValueError(
                f"torchvision's BatchNorm eps depends on the variant and it has no {variant}: pass "
                f"source='torchvision/efficientnet_b0' (eps 1e-5) or 'torchvision/efficientnet_b5' "
                f"(eps 1e-3), whichever the weights were trained with"
            )
        return Semantics(1e-3, 0.01, "same" if fmt == "lukemelas" else "symmetric")
    return source_semantics(Source(fmt, False, variant, None))


def config_semantics(config: Mapping[str, Any], origin: str) -> tuple[Source, Semantics] | None:
    """The semantics in a hub repository's ``config.json``, or None if it names no timm model.

    Args:
        config: with ``architecture`` and, nested in ``pretrained_cfg`` or beside it, ``mean``,
            ``std``, ``input_size``, ``crop_pct``, ``crop_mode``, ``interpolation``.
        origin: how errors name the checkpoint.

    Raises:
        ValueError: the architecture is not an EfficientNet that this package builds.
    """
    architecture = config.get("architecture")
    if not isinstance(architecture, str):
        return None
    try:
        source = parse_source(f"timm/{architecture}")
    except ValueError:
        raise ValueError(
            f"{origin}: its configuration names {architecture!r}, which is not an EfficientNet among those "
            f"that effkernels.list_models() gives"
        ) from None
    base = source_semantics(Source(source.family, source.tf, source.variant, None))
    nested = config.get("pretrained_cfg")
    pictures = _configured_preprocessing(
        nested if isinstance(nested, Mapping) else config, base.preprocessing, origin
    )
    arguments = config.get("model_args") or {}
    padding = base.padding
    if "pad_type" in arguments:
        padding = "same" if arguments["pad_type"] == "same" else "symmetric"
    return source, Semantics(
        bn_eps=arguments.get("bn_eps", base.bn_eps),
        bn_momentum=arguments.get("bn_momentum", base.bn_momentum),
        padding=padding,
        preprocessing=pictures,
    )


def _configured_preprocessing(
    config: Mapping[str, Any], default: Preprocessing | None, origin: str
) -> Preprocessing | None:
    """timm's fields as a Preprocessing; missing fields are taken from ``default``."""
    known = default or Preprocessing()
    side = config.get("input_size", (3, known.size, known.size))
    crop_mode = config.get("crop_mode", "center")
    if crop_mode != "center" or side[-1] != side[-2]:
        raise ValueError(
            f"{origin}: its configuration asks for crop mode {crop_mode!r} and input size {side}; "
            f"only square centre crops are supported. Load the weights file by path with "
            f"source=..., and prepare the pictures yourself"
        )
    return Preprocessing(
        mean=config.get("mean", known.mean),
        std=config.get("std", known.std),
        size=side[-1],
        crop_fraction=config.get("crop_pct", known.crop_fraction),
        interpolation=config.get("interpolation", known.interpolation),
    )


def twin(fmt: str, variant: str, semantics: Semantics) -> str | None:
    """The name of ``fmt``'s model that computes the same; None if there is none."""
    for tf in (False, True) if fmt == "timm" else (False,):
        candidate = Source(fmt, tf, variant, None)
        if _exists(candidate) and source_semantics(candidate).same_outputs(semantics):
            return candidate.name
    return None


def _exists(source: Source) -> bool:
    try:
        source_semantics(source)
    except ValueError:
        return False
    return True
