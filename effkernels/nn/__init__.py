"""The layers: ordinary modules that hold parameters and, in inference, call the fused ops."""

from effkernels.nn._plain import remember
from effkernels.nn.bottleneck import Bottleneck
from effkernels.nn.conv_bn_act import Conv2dSame, ConvBnAct
from effkernels.nn.drop_path import DropPath
from effkernels.nn.fused_mbconv import FusedMBConv
from effkernels.nn.mbconv import MBConv
from effkernels.nn.separable_conv import SeparableConv
from effkernels.nn.squeeze_excite import SqueezeExcite

remember(
    *(
        Bottleneck,
        Conv2dSame,
        ConvBnAct,
        DropPath,
        FusedMBConv,
        MBConv,
        SeparableConv,
        SqueezeExcite,
    )
)

__all__ = [
    "Bottleneck",
    "Conv2dSame",
    "ConvBnAct",
    "DropPath",
    "FusedMBConv",
    "MBConv",
    "SeparableConv",
    "SqueezeExcite",
]
