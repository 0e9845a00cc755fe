#pragma once

#include "args/common.h"

namespace effkernels {

struct ConvBnActArgs {
  Shape in, out;
  Dtype dtype;  // of weight and y; also of x unless `bytes`
  Window window;
  const void* x;
  bool planar;  // x is dense NCHW, as images usually are
  bool bytes;   // x is uint8
  Parameters image_mean,
      image_std;       // (in channels): x is normalised with them, padding is 0 after it; or null
  const void* weight;  // (out channels, in channels, kernel_h, kernel_w) with these strides, in elements
  int64_t weight_strides[4];
  Norm norm;
  Activation activation;
  void* y;
};

}  // namespace effkernels
