"""What a study scales: a network for pictures of some size and number of classes."""

from __future__ import annotations

from dataclasses import dataclass

from effkernels.analysis.cost import ModelCost
from effkernels.models import EfficientNetConfig
from effkernels.models.scaling import round_resolution
from effkernels.studies.architecture import (
    LARGEST_RESOLUTION,
    SMALL_RESOLUTION,
    Architecture,
    small_config,
)


@dataclass(frozen=True)
class Base:
    """The network that a study begins with.

    Args:
        config: of it; its own depth, width and resolution are multiplied.
        largest: side of the pictures in pixels: enlarged ones hold nothing new, so no network sees larger ones.
        num_classes, in_channels: of all networks of the study.

    Raises:
        ValueError: the base itself sees larger pictures.
    """

    config: EfficientNetConfig
    largest: int
    num_classes: int = 10
    in_channels: int = 1

    def __post_init__(self) -> None:
        self._check(self.config.resolution)

    def scaled(
        self, *, depth: float = 1.0, width: float = 1.0, resolution: float = 1.0
    ) -> Architecture:
        """The base with its depth, width and resolution multiplied.

        Raises:
            ValueError: the resolution exceeds the pictures' own.
        """
        self._check(self.side(resolution))
        config = self.config.scale(depth=depth, width=width, resolution=resolution)
        return Architecture(config).canonical()

    def side(self, resolution: float) -> int:
        """Pixels at a multiplier of the resolution."""
        return round_resolution(self.config.resolution * resolution)

    @property
    def network(self) -> Architecture:
        """The base itself."""
        return self.scaled()

    @property
    def largest_factor(self) -> float:
        """The largest multiplier of the resolution."""
        return self.largest / self.config.resolution

    def cost(self, architecture: Architecture) -> ModelCost:
        """Exact MACs and parameters of one picture."""
        return architecture.cost(self.num_classes, self.in_channels)

    def _check(self, side: int) -> None:
        if side > self.largest:
            own = self.config.resolution
            hint = f": begin below the {own} pixels of {self.config.name} (--resolution)"
            raise ValueError(
                f"resolution must be at most {self.largest}, the pictures' own, got {side}"
                f"{'' if own == SMALL_RESOLUTION else hint}"
            )


SMALL = Base(small_config(), LARGEST_RESOLUTION)
"""The base of networks that train in seconds, for Fashion-MNIST."""
