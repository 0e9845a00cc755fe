#pragma once

#include "args/conv_bn_act.h"
#include "cuda/common/stream.h"

namespace effkernels::cuda {

// Terms of a sum, at most: weights of an output channel.
constexpr int kMostTerms = 256;

// Takes pointers in the memory of the current device, and a cudaStream_t; returns nullptr, or a message that
// says what is wrong.
const char* conv_bn_act(const ConvBnActArgs& args, const Stream& stream);

}  // namespace effkernels::cuda
