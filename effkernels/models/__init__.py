"""EfficientNets: configurations as data, the network, and the registry of named models."""

from effkernels.models.config import CONFIGS, BlockConfig, EfficientNetConfig, StageConfig
from effkernels.models.efficientnet import EfficientNet, EfficientNetFeatures
from effkernels.models.registry import build, create_model, efficientnet, get_config, list_models

__all__ = [
    "CONFIGS",
    "BlockConfig",
    "EfficientNet",
    "EfficientNetConfig",
    "EfficientNetFeatures",
    "StageConfig",
    "build",
    "create_model",
    "efficientnet",
    "get_config",
    "list_models",
]
