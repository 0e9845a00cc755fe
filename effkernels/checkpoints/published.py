"""How published weights were evaluated: picture size, crop, interpolation, mean and std, as data.

Each number is the publisher's own (timm's ``default_cfgs``, torchvision's ``Weights`` enums, the
EfficientNet-Lite and EfficientNet-PyTorch repositories). Where timm lists a second, larger test
size, the first one is used, as in timm's own default transform.
"""

from __future__ import annotations

from collections.abc import Iterable

from effkernels.models.variants import VARIANTS
from effkernels.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INCEPTION_MEAN,
    INCEPTION_STD,
    Preprocessing,
)

_IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
_INCEPTION = (INCEPTION_MEAN, INCEPTION_STD)
# Google's Lite models compute (pixel - 127) / 128. RangiLyu's training code rounds the same
# constants to 3 digits.
_LITE = ((127 / 255,) * 3, (128 / 255,) * 3)
_LITE_ROUNDED = ((0.498,) * 3, (0.502,) * 3)

# TensorFlow's evaluation crops the fraction size / (size + 32) of the shorter side.
_TF_CROP_PADDING = 32

# timm's tf_ models: timm rounds the fractions to three digits, sometimes down.
_TIMM_TF_CROPS = {
    "efficientnet_b0": 0.875,
    "efficientnet_b1": 0.882,
    "efficientnet_b2": 0.890,
    "efficientnet_b3": 0.904,
    "efficientnet_b4": 0.922,
    "efficientnet_b5": 0.934,
    "efficientnet_b6": 0.942,
    "efficientnet_b7": 0.949,
    "efficientnet_b8": 0.954,
    "efficientnet_l2": 0.960,
    "efficientnet_lite0": 0.875,
    "efficientnet_lite1": 0.882,
    "efficientnet_lite2": 0.890,
    "efficientnet_lite3": 0.904,
    "efficientnet_lite4": 0.920,
}
# timm configures Lite3 and Lite4 with larger sizes than Google's table (280 and 300), and bilinear.
_TIMM_TF_ENLARGED = {"efficientnet_lite3": 300, "efficientnet_lite4": 380}
# Weights trained with AdvProp ("ap") use Inception's mean and std; all others use ImageNet's.
_TIMM_TF_TAGS = {
    "in1k": _IMAGENET,
    "aa_in1k": _IMAGENET,
    "ra_in1k": _IMAGENET,
    "ns_jft_in1k": _IMAGENET,
    "ns_jft_in1k_475": _IMAGENET,
    "ap_in1k": _INCEPTION,
}
# The meaning of a name without a tag, where it is not ns_jft_in1k.
_TIMM_TF_DEFAULTS = {"efficientnet_b8": "ap_in1k", "efficientnet_l2": "ns_jft_in1k_475"}
_TIMM_L2_475 = (475, 0.936, "bicubic")

# Weights that timm trained itself. The first tag of a variant is timm's default for a name without
# one.
_TIMM_OWN = {
    "efficientnet_b0": {
        "ra_in1k": (224, 0.875, _IMAGENET),
        "ra4_e3600_r224_in1k": (224, 0.9, _INCEPTION),
    },
    "efficientnet_b1": {
        "ra4_e3600_r240_in1k": (240, 0.9, _INCEPTION),
        "ft_in1k": (224, 0.875, _IMAGENET),
    },
    "efficientnet_b2": {"ra_in1k": (256, 0.875, _IMAGENET)},
    "efficientnet_b3": {"ra2_in1k": (288, 0.875, _IMAGENET)},
    "efficientnet_b4": {"ra2_in1k": (320, 0.875, _IMAGENET)},
    # efficientnet_b5.sw_in12k_ft_in1k is left out: its evaluation squashes pictures instead of
    # cropping them.
    "efficientnet_b5": {"sw_in12k": (416, 0.95, _IMAGENET)},
    "efficientnet_lite0": {"ra_in1k": (224, 0.875, _IMAGENET)},
}

# Crop size, size of the shorter side before the crop, interpolation. The last tag of a variant is
# torchvision's default.
_TORCHVISION = {
    "efficientnet_b0": {"IMAGENET1K_V1": (224, 256, "bicubic")},
    "efficientnet_b1": {
        "IMAGENET1K_V1": (240, 256, "bicubic"),
        "IMAGENET1K_V2": (240, 255, "bilinear"),
    },
    "efficientnet_b2": {"IMAGENET1K_V1": (288, 288, "bicubic")},
    "efficientnet_b3": {"IMAGENET1K_V1": (300, 320, "bicubic")},
    "efficientnet_b4": {"IMAGENET1K_V1": (380, 384, "bicubic")},
    "efficientnet_b5": {"IMAGENET1K_V1": (456, 456, "bicubic")},
    "efficientnet_b6": {"IMAGENET1K_V1": (528, 528, "bicubic")},
    "efficientnet_b7": {"IMAGENET1K_V1": (600, 600, "bicubic")},
}


def timm_preprocessing(variant: str, *, tf: bool, tag: str | None) -> Preprocessing | None:
    """Preprocessing of timm's weights; without a tag, of the default ones (in timm 1.0).

    None if timm builds the model but has published no weights for it.
    """
    if variant not in _TIMM_TF_CROPS:
        raise ValueError(f"timm has no {variant}")
    if tf:
        _check_tag("timm/tf_" + variant, tag, _TIMM_TF_TAGS)
        size = _TIMM_TF_ENLARGED.get(variant, VARIANTS[variant].config.resolution)
        crop = _TIMM_TF_CROPS[variant]
        interpolation = "bilinear" if variant in _TIMM_TF_ENLARGED else "bicubic"
        if tag == "ns_jft_in1k_475" and variant != "efficientnet_l2":
            raise ValueError(f"timm/tf_{variant} has no weights tagged {tag!r}; only L2 has")
        tag = tag or _TIMM_TF_DEFAULTS.get(variant, "ns_jft_in1k")
        if tag == "ns_jft_in1k_475":
            size, crop, interpolation = _TIMM_L2_475
        mean, std = _INCEPTION if VARIANTS[variant].lite else _TIMM_TF_TAGS[tag]
        return _preprocessing(mean, std, size, crop, interpolation)
    own = _TIMM_OWN.get(variant, {})
    _check_tag("timm/" + variant, tag, own)
    if not own or (tag is None and variant == "efficientnet_b5"):
        return None  # timm's default weights for B5 squash pictures: see above
    size, crop, (mean, std) = own[tag or next(iter(own))]
    return _preprocessing(mean, std, size, crop, "bicubic")


def torchvision_preprocessing(variant: str, *, tag: str | None) -> Preprocessing:
    """Preprocessing of torchvision's weights; without a tag, of the default ones."""
    if variant not in _TORCHVISION:
        raise ValueError(f"torchvision has no {variant}, only {', '.join(_TORCHVISION)}")
    weights = _TORCHVISION[variant]
    _check_tag("torchvision/" + variant, tag, weights)
    crop, resize, interpolation = weights[tag or next(reversed(weights))]
    return _preprocessing(*_IMAGENET, crop, crop / resize, interpolation)


def lukemelas_preprocessing(variant: str, *, tag: str | None) -> Preprocessing:
    """Preprocessing of the converted TensorFlow weights. The only tag is ``advprop``; B8 has only
    those.
    """
    _check_variant("lukemelas", variant, list(VARIANTS))
    _check_tag("lukemelas/" + variant, tag, () if VARIANTS[variant].lite else ("advprop",))
    if VARIANTS[variant].lite:
        mean, std = _LITE
    elif tag == "advprop" or variant == "efficientnet_b8":
        mean, std = _INCEPTION
    else:
        mean, std = _IMAGENET
    size = VARIANTS[variant].config.resolution
    return _preprocessing(mean, std, size, size / (size + _TF_CROP_PADDING), "bicubic")


def rangilyu_preprocessing(variant: str) -> Preprocessing:
    """Preprocessing of RangiLyu's Lite weights."""
    _check_variant("rangilyu", variant, [name for name, row in VARIANTS.items() if row.lite])
    size = VARIANTS[variant].config.resolution
    return _preprocessing(*_LITE_ROUNDED, size, size / (size + _TF_CROP_PADDING), "bicubic")


def is_named(variant: str) -> bool:
    """Whether ``variant`` is a named model, for which others publish weights too."""
    return variant in VARIANTS


def _preprocessing(
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: int,
    crop_fraction: float,
    interpolation: str,
) -> Preprocessing:
    if interpolation == "bilinear":
        return Preprocessing(mean, std, size, crop_fraction, "bilinear")
    return Preprocessing(mean, std, size, crop_fraction, "bicubic")


def _check_variant(family: str, variant: str, known: list[str]) -> None:
    if variant not in known:
        raise ValueError(f"{family} has no {variant}, only {', '.join(known)}")


def _check_tag(name: str, tag: str | None, known: Iterable[str]) -> None:
    tags = list(known)
    if tag is not None and tag not in tags:
        raise ValueError(
            f"{name} has no weights tagged {tag!r}; "
            + (f"known: {', '.join(tags)}" if tags else "its weights have no tags")
        )
