#pragma once

#include "args/depthwise_conv_bn_act.h"
#include "cuda/common/stream.h"

namespace effkernels::cuda {

// Partial sums of each image, for each channel: those of the blocks that it is cut into.
int depthwise_conv_bn_act_parts(const DepthwiseConvBnActArgs& args);

// The map, and with it sums[images][parts][channels] of its pixels unless that is null: all of them are
// written, and add up to the sum over the image. `args.mean` is not read.
const char* depthwise_conv_bn_act_sums(const DepthwiseConvBnActArgs& args, float* sums, const Stream& stream);

// Floats of workspace that the launcher below wants.
int64_t depthwise_conv_bn_act_workspace(const DepthwiseConvBnActArgs& args);

// Takes pointers in the memory of the current device, and a cudaStream_t; returns nullptr, or a message that
// says what is wrong.
const char* depthwise_conv_bn_act(const DepthwiseConvBnActArgs& args, float* workspace, const Stream& stream);

}  // namespace effkernels::cuda
