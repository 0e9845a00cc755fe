#pragma once

#include "args/pointwise_conv_bn_act.h"
#include "cuda/common/stream.h"

namespace effkernels::cuda {

// Floats of workspace that the launcher below wants.
int64_t pointwise_conv_bn_act_workspace(const PointwiseConvBnActArgs& args);

// Takes pointers in the memory of the current device, and a cudaStream_t; returns nullptr, or a message that
// says what is wrong. Bits of the means depend on the number of images and of the GPU's multiprocessors; they
// are the same at each call on one GPU.
const char* pointwise_conv_bn_act(const PointwiseConvBnActArgs& args, float* workspace, const Stream& stream);

}  // namespace effkernels::cuda
