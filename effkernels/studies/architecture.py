"""A network of a study: a configuration, and the stages whose blocks add no input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

from effkernels.analysis.cost import ModelCost, model_cost
from effkernels.models import EfficientNet, EfficientNetConfig, StageConfig
from effkernels.models.config_file import config_from_json, config_to_json
from effkernels.models.scaling import Coefficients

# B0's blocks (Tan and Le 2019, Table 1) for pictures of 14 pixels: two reductions in place of five.
SMALL_STAGES = (
    StageConfig(1, 3, 2, 1, 8),
    StageConfig(2, 3, 1, 4, 12),
    StageConfig(2, 3, 2, 4, 20),
)
SMALL_RESOLUTION = 14
LARGEST_RESOLUTION = 28
"""Fashion-MNIST's own: enlarged pictures hold nothing new."""

# What a stage's tuple holds in JSON.
_STAGE = ("repeats", "kernel_size", "stride", "expand_ratio", "out_channels", "se_ratio", "block")
_MOST_REDUCTIONS = 2


def small_config(
    stages: tuple[StageConfig, ...] = SMALL_STAGES,
    *,
    width: float = 1.0,
    depth: float = 1.0,
    resolution: int = SMALL_RESOLUTION,
    stem_channels: int = 8,
    head_channels: int = 48,
) -> EfficientNetConfig:
    """A configuration for pictures of 14 to 28 pixels, by default the base that these studies scale.

    The stem does not reduce, and widths are multiples of 2: at these sizes a stem of stride 2 and multiples of 8
    would swallow what scaling changes. Nothing is dropped: trainings of seconds do not overfit.

    Raises:
        ValueError: over two reductions, or a resolution above 28.
    """
    if _reductions(stages) > _MOST_REDUCTIONS:
        raise ValueError("stages must reduce at most twice: maps of 14 pixels would shrink to 2")
    if resolution > LARGEST_RESOLUTION:
        raise ValueError(
            f"resolution must be at most {LARGEST_RESOLUTION}, the pictures' own, got {resolution}"
        )
    return EfficientNetConfig(
        "small",
        Coefficients(width=width, depth=depth, resolution=resolution, dropout=0.0),
        stages,
        stem_channels=stem_channels,
        head_channels=head_channels,
        dropout=0.0,
        drop_path=0.0,
        bn_momentum=0.1,  # a training has about a hundred steps
        stem_stride=1,
        channel_divisor=2,
    )


def _reductions(stages: tuple[StageConfig, ...]) -> int:
    return sum(stage.stride > 1 for stage in stages)


def _is_small(config: EfficientNetConfig) -> bool:
    """Whether :func:`small_config` makes it, but for multipliers of width and depth, and its name."""
    plain = small_config()
    same = replace(
        config,
        name=plain.name,
        coefficients=plain.coefficients,
        stages=plain.stages,
        stem_channels=plain.stem_channels,
        head_channels=plain.head_channels,
    )
    fits = _reductions(config.stages) <= _MOST_REDUCTIONS
    return same == plain and fits and config.resolution <= LARGEST_RESOLUTION


@dataclass(frozen=True)
class Architecture:
    """A network of a study.

    Args:
        config: of the whole network.
        no_skip: stages whose blocks do not add their input, one of MNAS's decisions. It costs no MACs.
    """

    config: EfficientNetConfig
    no_skip: tuple[int, ...] = ()

    def build(self, num_classes: int, in_channels: int) -> EfficientNet:
        """The network with random weights."""
        model = EfficientNet(self.config, num_classes=num_classes, in_channels=in_channels)
        for stage in self.no_skip:
            for block in model.stages[stage].children():
                block.residual = False  # type: ignore[assignment]
        return model

    def cost(self, num_classes: int, in_channels: int) -> ModelCost:
        """Exact MACs and parameters of one picture."""
        return model_cost(self.config, num_classes=num_classes, in_channels=in_channels)

    def canonical(self) -> Architecture:
        """The same network, whatever multipliers of width and depth led to it.

        Rounding lets different multipliers make one network, which is then trained once. Stages of no block that
        could add its input lose their place in ``no_skip``.
        """
        config, blocks = self.config, list(self.config.blocks())
        rows = []
        for index, stage in enumerate(config.stages):
            own = [block for block in blocks if block.stage == index]
            rows.append(
                StageConfig(
                    len(own),
                    stage.kernel_size,
                    stage.stride,
                    stage.expand_ratio,
                    own[0].out_channels,
                    stage.se_ratio,
                    stage.block,
                )
            )
        changed = replace(
            config,
            name="small" if _is_small(config) else "scaled",
            coefficients=Coefficients(1.0, 1.0, config.resolution, config.dropout),
            stages=tuple(rows),
            stem_channels=config.scaled_stem_channels,
            # Without a head, what the last block makes is pooled.
            head_channels=config.scaled_head_channels if config.head_channels else 0,
        )
        if list(changed.blocks()) != blocks:  # inner widths of bottlenecks are rounded on their own
            changed = replace(config, name=changed.name)
        adding = {block.stage for block in blocks if block.same_shape}
        return Architecture(changed, tuple(s for s in sorted(set(self.no_skip)) if s in adding))

    def to_json(self) -> dict[str, Any]:
        """The canonical network as plain JSON types; equal networks give equal ones."""
        same = self.canonical()
        if not _is_small(same.config):
            return {
                "resolution": same.config.resolution,
                "config": config_to_json(same.config),
                "no_skip": list(same.no_skip),
            }
        return {
            "resolution": same.config.resolution,
            "stem": same.config.stem_channels,
            "stages": [list(astuple(stage)) for stage in same.config.stages],
            "head": same.config.head_channels,
            "no_skip": list(same.no_skip),
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Architecture:
        """What :meth:`to_json` wrote."""
        if "config" in document:
            return Architecture(config_from_json(document["config"]), tuple(document["no_skip"]))
        stages = tuple(StageConfig(**dict(zip(_STAGE, s, strict=True))) for s in document["stages"])
        config = small_config(
            stages,
            resolution=document["resolution"],
            stem_channels=document["stem"],
            head_channels=document["head"],
        )
        return Architecture(config, tuple(document["no_skip"]))
