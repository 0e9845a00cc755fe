#pragma once

#include "args/expand_depthwise_conv_bn_act.h"
#include "cuda/common/stream.h"

namespace effkernels::cuda {

// Partial sums of each image, for each channel, where one kernel computes both convolutions. 0 where there is
// none for the arguments, where the current device has no code of it or too little shared memory, and where
// two kernels are faster. EFFKERNELS_EXPAND_DEPTHWISE=one takes it wherever it can run, =two nowhere.
int expand_depthwise_conv_bn_act_parts(const ExpandDepthwiseConvBnActArgs& args);

// For arguments with partial sums: the map in one launch, and with it sums[images][parts][channels] of its
// pixels unless that is null; all of them are written.
const char* expand_depthwise_conv_bn_act_sums(const ExpandDepthwiseConvBnActArgs& args, float* sums,
                                              const Stream& stream);

// Floats of workspace that the launcher below wants.
int64_t expand_depthwise_conv_bn_act_workspace(const ExpandDepthwiseConvBnActArgs& args);

// In one kernel or in two. Takes pointers in the memory of the current device, and a cudaStream_t; returns
// nullptr, or a message that says what is wrong.
const char* expand_depthwise_conv_bn_act(const ExpandDepthwiseConvBnActArgs& args, float* workspace,
                                         const Stream& stream);

}  // namespace effkernels::cuda
