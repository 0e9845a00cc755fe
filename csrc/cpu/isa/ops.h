#pragma once

// The ops of this instruction set, one file each.

#include "cpu/kernels.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

extern const Op<DepthwiseConvBnActArgs> depthwise_conv_bn_act;
extern const Op<ConvBnActArgs> conv_bn_act;
extern const Op<PointwiseConvBnActArgs> pointwise_conv_bn_act;
extern const Op<SqueezeExciteGateArgs> squeeze_excite_gate;
extern const Op<SqueezeExciteArgs> squeeze_excite;
extern const Op<MbconvArgs> mbconv;
extern const Op<LinearArgs> linear;

}  // namespace effkernels::cpu::EFFKERNELS_ISA
