#pragma once

#include "args/expand_depthwise_conv_bn_act.h"

namespace effkernels::cuda {

// Input channels of the 1x1 convolution, at most.
constexpr int kMostExpanding = 128;

// Floats of workspace that the launcher below wants.
int64_t expand_depthwise_conv_bn_act_workspace(const ExpandDepthwiseConvBnActArgs& args);

// Takes pointers in the memory of the current device, and a cudaStream_t; returns nullptr, or a message that
// says what is wrong.
const char* expand_depthwise_conv_bn_act(const ExpandDepthwiseConvBnActArgs& args, float* workspace,
                                         void* stream);

}  // namespace effkernels::cuda
