"""The named models, one row each: everything that differs between them, and where their weights come from.

Sizes, names, exports, checkpoints and the paper's tables read this table; a model is added here and, for type
checkers, as one line of ``named.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from effkernels.models.config import EFFICIENTNET_STAGES, EfficientNetConfig
from effkernels.models.scaling import Coefficients

LITE_STAGES = tuple(replace(stage, se_ratio=0.0) for stage in EFFICIENTNET_STAGES)


@dataclass(frozen=True)
class Variant:
    """One named model.

    Args:
        title: its name in print, as in the paper.
        config: the architecture; ``config.name`` is the model's name here.
        imagenet: the source of ``weights="imagenet"``, as ``source=`` takes it; see
            :func:`effkernels.checkpoints.parse_source`.
    """

    title: str
    config: EfficientNetConfig
    imagenet: str

    @property
    def lite(self) -> bool:
        """Whether it is one of EfficientNet-Lite."""
        return self.config.fix_stem_and_head


def _variant(
    size: str, width: float, depth: float, resolution: int, dropout: float, imagenet: str
) -> Variant:
    name = f"efficientnet_{size.lower()}"
    coefficients = Coefficients(width, depth, resolution, dropout)
    config = EfficientNetConfig(name, coefficients, dropout=dropout)
    if size.startswith("Lite"):
        config = replace(config, stages=LITE_STAGES, activation="relu6", fix_stem_and_head=True)
    return Variant(f"EfficientNet-{size}", config, imagenet.format(name))


# Sizes: efficientnet_builder.py and lite/ of tensorflow/tpu.
# Weights: those of the TensorFlow authors, trained on ImageNet alone, as timm and lukemelas converted them: with
# AutoAugment (the accuracies of the paper's Table 2) for B1-B7, with RandAugment for B8, and with the baseline recipe
# for B0, whose file is the one with a public record of commit and sha256. L2 was trained with NoisyStudent on JFT;
# there are no others.
_ROWS = (
    # size, width, depth, resolution, dropout, ImageNet weights
    _variant("B0", 1.0, 1.0, 224, 0.2, "timm/tf_{}.in1k"),
    _variant("B1", 1.0, 1.1, 240, 0.2, "timm/tf_{}.aa_in1k"),
    _variant("B2", 1.1, 1.2, 260, 0.3, "timm/tf_{}.aa_in1k"),
    _variant("B3", 1.2, 1.4, 300, 0.3, "timm/tf_{}.aa_in1k"),
    _variant("B4", 1.4, 1.8, 380, 0.4, "timm/tf_{}.aa_in1k"),
    _variant("B5", 1.6, 2.2, 456, 0.4, "timm/tf_{}.aa_in1k"),
    _variant("B6", 1.8, 2.6, 528, 0.5, "timm/tf_{}.aa_in1k"),
    _variant("B7", 2.0, 3.1, 600, 0.5, "timm/tf_{}.aa_in1k"),
    _variant("B8", 2.2, 3.6, 672, 0.5, "timm/tf_{}.ra_in1k"),
    _variant("L2", 4.3, 5.3, 800, 0.5, "timm/tf_{}.ns_jft_in1k"),
    _variant("Lite0", 1.0, 1.0, 224, 0.2, "lukemelas/{}"),
    _variant("Lite1", 1.0, 1.1, 240, 0.2, "lukemelas/{}"),
    _variant("Lite2", 1.1, 1.2, 260, 0.3, "lukemelas/{}"),
    _variant("Lite3", 1.2, 1.4, 280, 0.3, "timm/tf_{}.in1k"),
    _variant("Lite4", 1.4, 1.8, 300, 0.3, "timm/tf_{}.in1k"),
)

VARIANTS: Mapping[str, Variant] = MappingProxyType({row.config.name: row for row in _ROWS})
"""Every named model of the paper and of EfficientNet-Lite, by name."""

CONFIGS: dict[str, EfficientNetConfig] = {name: row.config for name, row in VARIANTS.items()}
"""Their architectures."""

NAMED: Mapping[str, Coefficients] = MappingProxyType(
    {name: row.config.coefficients for name, row in VARIANTS.items()}
)
"""Their coefficients."""
