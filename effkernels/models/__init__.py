"""EfficientNets: configurations as data, the network, and the registry of named models."""

from effkernels.models.config import BlockConfig, EfficientNetConfig, StageConfig
from effkernels.models.efficientnet import EfficientNet, EfficientNetFeatures
from effkernels.models.registry import build, create_model, efficientnet, get_config, list_models
from effkernels.models.variants import CONFIGS, VARIANTS, Variant

__all__ = [
    "CONFIGS",
    "VARIANTS",
    "BlockConfig",
    "EfficientNet",
    "EfficientNetConfig",
    "EfficientNetFeatures",
    "StageConfig",
    "Variant",
    "build",
    "create_model",
    "efficientnet",
    "get_config",
    "list_models",
]
