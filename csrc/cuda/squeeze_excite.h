#pragma once

#include "args/squeeze_excite.h"
#include "cuda/common/stream.h"

namespace effkernels::cuda {

// Floats of workspace that the launcher below wants.
int64_t squeeze_excite_workspace(const SqueezeExciteArgs& args);

// Takes pointers in the memory of the current device, and a cudaStream_t; returns nullptr, or a message that
// says what is wrong.
const char* squeeze_excite(const SqueezeExciteArgs& args, float* workspace, const Stream& stream);

}  // namespace effkernels::cuda
