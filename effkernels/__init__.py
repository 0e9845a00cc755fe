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
from effkernels.models.named import (
    efficientnet_b0,
    efficientnet_b1,
    efficientnet_b2,
    efficientnet_b3,
    efficientnet_b4,
    efficientnet_b5,
    efficientnet_b6,
    efficientnet_b7,
    efficientnet_b8,
    efficientnet_l2,
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
    efficientnet_lite3,
    efficientnet_lite4,
)
from effkernels.preprocessing import Preprocessing

_backends.register()  # the contracts of the ops exist now

__version__ = "0.1.0"

__all__ = [
    "BackendStatus",
    "EfficientNet",
    "EfficientNetConfig",
    "EfficientNetFeatures",
    "Explanation",
    "FallbackWarning",
    "GraphedModel",
    "Preprocessing",
    "__version__",
    "backends",
    "create_model",
    "efficientnet",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "efficientnet_b8",
    "efficientnet_l2",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "efficientnet_lite3",
    "efficientnet_lite4",
    "explain",
    "graph",
    "list_models",
    "ops",
    "scaling",
    "use_backend",
]
