#pragma once

#include "args/linear.h"
#include "cuda/common/stream.h"

namespace effkernels::cuda {

// Bytes of workspace that the launcher below wants.
int64_t linear_workspace(const LinearArgs& args);

// The classifier: features times weights, and a bias. Features are rounded to the type of the weights first.
// Takes pointers in the memory of the current device, and a cudaStream_t; returns nullptr, or a message that
// says what is wrong.
const char* linear(const LinearArgs& args, void* workspace, const Stream& stream);

}  // namespace effkernels::cuda
