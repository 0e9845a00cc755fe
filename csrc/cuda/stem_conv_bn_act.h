#pragma once

#include "args/conv_bn_act.h"
#include "cuda/common/stream.h"

namespace effkernels::cuda {

// Whether the kernel for stems takes a convolution: three input channels, 3x3 of stride 2, in float16 or
// bfloat16.
bool takes_stem(const ConvBnActArgs& args);

// conv_bn_act of such a convolution, on tensor cores; as its launcher.
const char* stem_conv_bn_act(const ConvBnActArgs& args, const Stream& stream);

}  // namespace effkernels::cuda
