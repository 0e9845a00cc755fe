#pragma once

#include "args/common.h"

namespace effkernels {

struct DepthwiseConvBnActArgs {
  Shape in, out;
  Dtype dtype;  // of x, weight and y
  Window window;
  const void* x;
  const void* weight;  // (channels, kernel_h, kernel_w)
  Norm norm;
  Activation activation;
  void* y;
  float* mean;  // (images, channels): means of y over height and width, or null
};

}  // namespace effkernels
