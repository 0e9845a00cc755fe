#pragma once

#include "args/depthwise_conv_bn_act.h"

namespace effkernels::cuda {

// Floats of workspace that the launcher below wants.
int64_t depthwise_conv_bn_act_workspace(const DepthwiseConvBnActArgs& args);

// Takes pointers in the memory of the current device, and a cudaStream_t; returns nullptr, or a message that
// says what is wrong.
const char* depthwise_conv_bn_act(const DepthwiseConvBnActArgs& args, float* workspace, void* stream);

// The parts of an image of which the next launcher writes a sum for each channel.
int depthwise_conv_bn_act_parts(const DepthwiseConvBnActArgs& args);

// The same without means: `sums`, unless it is null, gets the sums over the parts of each image,
// [images][parts][channels], all of them.
const char* depthwise_conv_bn_act_sums(const DepthwiseConvBnActArgs& args, float* sums, void* stream);

}  // namespace effkernels::cuda
