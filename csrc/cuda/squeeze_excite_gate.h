#pragma once

#include "args/squeeze_excite_gate.h"
#include "cuda/common/stream.h"
#include "cuda/sums_gate.h"

namespace effkernels::cuda {

// Hidden channels, at most.
constexpr int kMostHidden = 12288;

// Why there is no kernel for a gate; nullptr where there is one.
inline const char* refusal(const SqueezeExciteGateArgs& args) {
  return args.squeezed > kMostHidden ? "it has too many hidden channels" : nullptr;
}

// Takes pointers in the memory of the current device, and a cudaStream_t; returns nullptr, or a message that
// says what is wrong.
const char* squeeze_excite_gate(const SqueezeExciteGateArgs& args, const Stream& stream);

// The same from partial sums: one launch, or two, the first of which writes the means. args.pooled is
// not read.
const char* squeeze_excite_gate_of_sums(const SqueezeExciteGateArgs& args, const PartialSums& sums,
                                        const Stream& stream);

}  // namespace effkernels::cuda
