#pragma once

#include "args/squeeze_excite_gate.h"
#include "cuda/common/stream.h"

namespace effkernels::cuda {

// What the gate's means are made of: sums [images][parts][channels] over parts of an image's pixels.
struct PartialSums {
  const float* sums;
  int parts;
  int64_t pixels;  // of an image
  float* means;    // [images][channels]: written where they are added by a launch of their own; or null
};

// Launches the kernel that adds the sums and computes the gate of 16-bit weights, where it takes these
// arguments: multiples of 8 channels, of 2 hidden ones, weights of one dtype that lie aligned. `pooled` is
// not read. Returns whether it did; `error` is then nullptr, or a message that says what is wrong.
bool try_sums_gate(const SqueezeExciteGateArgs& args, const PartialSums& sums, const Stream& stream,
                   const char*& error);

}  // namespace effkernels::cuda
