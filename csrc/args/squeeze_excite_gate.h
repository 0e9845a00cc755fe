#pragma once

#include "args/common.h"

namespace effkernels {

struct SqueezeExciteGateArgs {
  int64_t images;
  int channels, squeezed;
  Parameters reduce_weight, reduce_bias;  // (squeezed, channels), (squeezed)
  Parameters expand_weight, expand_bias;  // (channels, squeezed), (channels)
  Activation activation;
  const float* pooled;  // (images, channels)
  float* gate;          // (images, channels)

  // These weights with images: the arguments with which kernels that contain a gate call the gate's
  // kernel.
  EFFKERNELS_INLINE SqueezeExciteGateArgs with(int64_t count, const float* from, float* to) const {
    SqueezeExciteGateArgs args = *this;
    args.images = count;
    args.pooled = from;
    args.gate = to;
    return args;
  }
};

}  // namespace effkernels
