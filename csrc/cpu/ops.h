#pragma once

// The ops of this instruction set, one file each.

#include "cpu/kernels.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

extern const Op<DepthwiseArgs> kDepthwise;
extern const Op<ConvArgs> kConv;
extern const Op<PointwiseArgs> kPointwise;
extern const Op<GateArgs> kGate;
extern const Op<SqueezeExciteArgs> kSqueezeExcite;
extern const Op<MbconvArgs> kMbconv;
extern const Op<LinearArgs> kLinear;

}  // namespace effkernels::cpu::EFFKERNELS_ISA
