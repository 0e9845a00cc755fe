"""The ops in plain PyTorch: the fallback of every backend and the reference of every test.

Differentiable like any PyTorch code, on any device and in any floating dtype. In float64 everything is
float64; otherwise pooling and gates are float32 and the rest has the precision of the same PyTorch
modules.
"""

from effkernels.reference.conv_bn_act import conv_bn_act
from effkernels.reference.convolution import conv2d, same_padding
from effkernels.reference.depthwise_conv_bn_act import (
    depthwise_conv_bn_act,
    depthwise_conv_bn_act_pool,
)
from effkernels.reference.elementwise import normalise
from effkernels.reference.pointwise_conv_bn_act import pointwise_conv_bn_act
from effkernels.reference.squeeze_excite import squeeze_excite
from effkernels.reference.squeeze_excite_gate import squeeze_excite_gate

__all__ = [
    "conv2d",
    "conv_bn_act",
    "depthwise_conv_bn_act",
    "depthwise_conv_bn_act_pool",
    "normalise",
    "pointwise_conv_bn_act",
    "same_padding",
    "squeeze_excite",
    "squeeze_excite_gate",
]
