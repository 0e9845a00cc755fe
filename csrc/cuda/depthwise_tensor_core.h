#pragma once

#include "args/depthwise_conv_bn_act.h"
#include "cuda/common/stream.h"

namespace effkernels::cuda {

// Whether NaN and infinities of a channel must not reach others: EFFKERNELS_CHANNELS_APART=1.
bool channels_apart();

// Partial sums that the kernel of depthwise_tensor_core.cu makes of each image, for each channel; 0 where it
// does not take the arguments, or the current device has no code of it.
int depthwise_tensor_core_parts(const DepthwiseConvBnActArgs& args);

// For arguments with partial sums, and some images. They go to sums[images][parts][channels], all of them,
// unless it is null. Returns nullptr, or a message that says what is wrong.
const char* depthwise_tensor_core(const DepthwiseConvBnActArgs& args, float* sums, const Stream& stream);

}  // namespace effkernels::cuda
