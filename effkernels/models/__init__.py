"""EfficientNets: configurations as data, the network, and the registry of named models."""

from effkernels.models.baselines import BASELINES
from effkernels.models.config import BlockConfig, EfficientNetConfig, StageConfig
from effkernels.models.config_file import (
    config_from_json,
    config_to_json,
    read_config,
    write_config,
)
from effkernels.models.efficientnet import EfficientNet, EfficientNetFeatures
from effkernels.models.registry import build, create_model, efficientnet, get_config, list_models
from effkernels.models.variants import CONFIGS, VARIANTS, Variant

__all__ = [
    "BASELINES",
    "CONFIGS",
    "VARIANTS",
    "BlockConfig",
    "EfficientNet",
    "EfficientNetConfig",
    "EfficientNetFeatures",
    "StageConfig",
    "Variant",
    "build",
    "config_from_json",
    "config_to_json",
    "create_model",
    "efficientnet",
    "get_config",
    "list_models",
    "read_config",
    "write_config",
]
