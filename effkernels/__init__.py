"""effkernels: EfficientNets from fused kernels, for PyTorch."""

from effkernels import _backends, ops, scaling
from effkernels.dispatch import BackendStatus, FallbackWarning, backends, use_backend
from effkernels.explaining import Explanation, explain
from effkernels.graphs import GraphedModel, graph
from effkernels.models import (
    EfficientNet,
    EfficientNetConfig,
    EfficientNetFeatures,
    create_model,
    efficientnet,
    list_models,
)
from effkernels.models.named import *  # noqa: F403 - one function per model
from effkernels.models.variants import VARIANTS
from effkernels.preprocessing import Preprocessing
from effkernels.profiling import GpuProfile, Profile, profile

_backends.register()  # after the ops have declared their schemas

__version__ = "0.1.0"

__all__ = [
    "BackendStatus",
    "EfficientNet",
    "EfficientNetConfig",
    "EfficientNetFeatures",
    "Explanation",
    "FallbackWarning",
    "GpuProfile",
    "GraphedModel",
    "Preprocessing",
    "Profile",
    "__version__",
    "backends",
    "create_model",
    "efficientnet",
    *VARIANTS,
    "explain",
    "graph",
    "list_models",
    "ops",
    "profile",
    "scaling",
    "use_backend",
]
