#pragma once

#include "args/common.h"

namespace effkernels {

// The gradient of a depthwise convolution's weight. All in float.
struct DepthwiseConvWgradArgs {
  Shape in, out;
  Window window;
  const float* x;
  const float* grad;  // of the result
  float* weight;      // its gradient, (channels, kernel_h, kernel_w)
};

}  // namespace effkernels
