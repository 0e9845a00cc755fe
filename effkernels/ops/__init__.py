"""The fused ops. Each function checks its arguments, then runs on the fastest backend that accepts them.

Images are (N, C, H, W) tensors in channels_last memory (NHWC); other layouts are converted, and results are
channels_last. Dtypes are float16, bfloat16, float32 and float64, and uint8 for images of ``conv_bn_act``.
Sums, BatchNorm, pooled values and gates are float32 (float64 for float64). Under ``torch.autocast`` images and
weights are cast to its dtype. The same ops exist as ``torch.ops.effkernels.*``, with flat arguments that only
PyTorch checks.
"""

import torch.fx

from effkernels.ops._arguments import BatchNorm, Conv, Gate
from effkernels.ops.conv_bn_act import conv_bn_act
from effkernels.ops.depthwise_conv_bn_act import depthwise_conv_bn_act, depthwise_conv_bn_act_pool
from effkernels.ops.expand_depthwise_conv_bn_act import (
    expand_depthwise_conv_bn_act,
    expand_depthwise_conv_bn_act_pool,
)
from effkernels.ops.mbconv import mbconv
from effkernels.ops.pointwise_conv_bn_act import (
    pointwise_conv_bn_act,
    pointwise_conv_bn_act_pool,
    pointwise_conv_bn_act_squeeze,
)
from effkernels.ops.squeeze_excite import squeeze_excite
from effkernels.ops.squeeze_excite_gate import squeeze_excite_gate

__all__ = [
    "BatchNorm",
    "Conv",
    "Gate",
    "conv_bn_act",
    "depthwise_conv_bn_act",
    "depthwise_conv_bn_act_pool",
    "expand_depthwise_conv_bn_act",
    "expand_depthwise_conv_bn_act_pool",
    "mbconv",
    "pointwise_conv_bn_act",
    "pointwise_conv_bn_act_pool",
    "pointwise_conv_bn_act_squeeze",
    "squeeze_excite",
    "squeeze_excite_gate",
]

# torch.fx.symbolic_trace records each call of effkernels.ops.<name> as one node, like PyTorch's own operators.
for _name in __all__:
    if _name.islower():
        torch.fx.wrap(_name)
